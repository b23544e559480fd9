-- +goose Up

-- members counts list_members; next_position numbers them, and is what tells a version of the list from the next.
CREATE TABLE contact_lists (
  number        INTEGER NOT NULL PRIMARY KEY,
  tenant        TEXT NOT NULL REFERENCES tenants (id),
  name          TEXT NOT NULL,
  search        TEXT NOT NULL,
  test          BOOLEAN NOT NULL,
  members       INTEGER NOT NULL CHECK (members >= 0),
  next_position INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  created_ms    INTEGER NOT NULL,
  updated_ms    INTEGER NOT NULL,
  deleted_ms    INTEGER NOT NULL
);
CREATE UNIQUE INDEX contact_lists_name ON contact_lists (tenant, name) WHERE deleted_ms = 0;
CREATE INDEX contact_lists_tenant ON contact_lists (tenant, number);

-- No foreign keys on this and the next table: they take 30,000 rows a second, and only package store writes them.
-- attributes is a JSON object of strings with sorted keys, so equal attributes are equal texts; '' when there are none.
CREATE TABLE contacts (
  number     INTEGER NOT NULL PRIMARY KEY,
  tenant     TEXT NOT NULL,
  phone      TEXT NOT NULL,
  first_name TEXT NOT NULL,
  last_name  TEXT NOT NULL,
  email      TEXT NOT NULL,
  attributes TEXT NOT NULL,
  country    TEXT NOT NULL,
  zone       TEXT NOT NULL,
  class      INTEGER NOT NULL,
  valid      BOOLEAN NOT NULL,
  version    INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  deleted_ms INTEGER NOT NULL
);
CREATE UNIQUE INDEX contacts_phone ON contacts (tenant, phone);

-- Who is in a list, in the order in which they came. Both keys are appended to by an import of new contacts.
CREATE TABLE list_members (
  tenant   TEXT NOT NULL,
  list     INTEGER NOT NULL,
  position INTEGER NOT NULL,
  contact  INTEGER NOT NULL,
  PRIMARY KEY (tenant, list, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX list_members_contact ON list_members (tenant, list, contact);

-- rejected is a JSON array of the first refused rows.
CREATE TABLE imports (
  id          TEXT NOT NULL PRIMARY KEY,
  tenant      TEXT NOT NULL REFERENCES tenants (id),
  list        INTEGER NOT NULL,
  source      TEXT NOT NULL,
  state       TEXT NOT NULL,
  error       TEXT NOT NULL,
  rows_read   INTEGER NOT NULL,
  total       INTEGER NOT NULL,
  imported    INTEGER NOT NULL,
  updated     INTEGER NOT NULL,
  unchanged   INTEGER NOT NULL,
  duplicates  INTEGER NOT NULL,
  invalid     INTEGER NOT NULL,
  unreachable INTEGER NOT NULL,
  rejected    TEXT NOT NULL,
  started_ms  INTEGER NOT NULL,
  seen_ms     INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL
);
CREATE INDEX imports_tenant ON imports (tenant, started_ms);

-- Opt-outs. phone is what the freeze joins with, hash what the topic carries instead of it. A lifted one stays as a
-- row, so that its version goes on growing; the log is the proof of every change, and only ever added to.
CREATE TABLE suppressions (
  tenant            TEXT NOT NULL REFERENCES tenants (id),
  phone             TEXT NOT NULL,
  hash              TEXT NOT NULL,
  source            TEXT NOT NULL,
  lifted            BOOLEAN NOT NULL,
  version           INTEGER NOT NULL,
  published_version INTEGER NOT NULL,
  updated_ms        INTEGER NOT NULL,
  PRIMARY KEY (tenant, phone)
);
CREATE INDEX suppressions_hash ON suppressions (tenant, hash);
CREATE INDEX suppressions_outbox ON suppressions (updated_ms) WHERE version > published_version;

CREATE TABLE suppression_log (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant  TEXT NOT NULL REFERENCES tenants (id),
  phone   TEXT NOT NULL,
  source  TEXT NOT NULL,
  lifted  BOOLEAN NOT NULL,
  version INTEGER NOT NULL,
  time_ms INTEGER NOT NULL
);
CREATE INDEX suppression_log_phone ON suppression_log (tenant, phone, id);
