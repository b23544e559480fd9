-- +goose Up

-- Numbers handed out in blocks, so that a batch of rows costs one update.
CREATE TABLE counters (
  name TEXT NOT NULL PRIMARY KEY,
  next INTEGER NOT NULL
);
INSERT INTO counters (name, next) VALUES ('campaign', 10001), ('list', 10001), ('contact', 1);

CREATE TABLE tenants (
  id                TEXT NOT NULL PRIMARY KEY,
  name              TEXT NOT NULL UNIQUE,
  enabled           BOOLEAN NOT NULL,
  campaigns_enabled BOOLEAN NOT NULL,
  region            TEXT NOT NULL,
  timezone          TEXT NOT NULL,
  currency          TEXT NOT NULL,
  default_route     TEXT NOT NULL,
  default_sender    TEXT NOT NULL,
  max_active        INTEGER NOT NULL,
  max_contacts      INTEGER NOT NULL,
  max_segments      INTEGER NOT NULL,
  rate              INTEGER NOT NULL,
  weight            INTEGER NOT NULL,
  version           INTEGER NOT NULL,
  published_version INTEGER NOT NULL,
  created_ms        INTEGER NOT NULL,
  updated_ms        INTEGER NOT NULL
);
CREATE INDEX tenants_outbox ON tenants (id) WHERE version > published_version;

CREATE TABLE api_keys (
  id         TEXT NOT NULL PRIMARY KEY,
  tenant     TEXT NOT NULL REFERENCES tenants (id),
  name       TEXT NOT NULL,
  hint       TEXT NOT NULL,
  hash       BLOB NOT NULL UNIQUE,
  scopes     TEXT NOT NULL,
  test       BOOLEAN NOT NULL,
  version    INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  used_ms    INTEGER NOT NULL,
  revoked_ms INTEGER NOT NULL
);
CREATE INDEX api_keys_tenant ON api_keys (tenant, created_ms);

CREATE TABLE routes (
  name              TEXT NOT NULL PRIMARY KEY,
  channels          TEXT NOT NULL,
  connector         TEXT NOT NULL,
  rate              INTEGER NOT NULL,
  burst             INTEGER NOT NULL,
  p99_ms            INTEGER NOT NULL,
  receipt_window_ms INTEGER NOT NULL,
  enabled           BOOLEAN NOT NULL,
  version           INTEGER NOT NULL,
  published_version INTEGER NOT NULL,
  created_ms        INTEGER NOT NULL,
  updated_ms        INTEGER NOT NULL
);
CREATE INDEX routes_outbox ON routes (name) WHERE version > published_version;

-- A deleted sender stays as a row until its tombstone is published, and comes back with a higher version.
CREATE TABLE senders (
  tenant            TEXT NOT NULL REFERENCES tenants (id),
  id                TEXT NOT NULL,
  rate              INTEGER NOT NULL,
  deleted           BOOLEAN NOT NULL,
  version           INTEGER NOT NULL,
  published_version INTEGER NOT NULL,
  created_ms        INTEGER NOT NULL,
  updated_ms        INTEGER NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX senders_outbox ON senders (tenant, id) WHERE version > published_version;

CREATE TABLE prices (
  tenant     TEXT NOT NULL REFERENCES tenants (id),
  channel    INTEGER NOT NULL,
  micros     INTEGER NOT NULL CHECK (micros >= 0),
  version    INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, channel)
);

-- available is NULL for unlimited credit. The checks are the last line: no bug may take an account below zero.
CREATE TABLE balances (
  tenant    TEXT NOT NULL PRIMARY KEY REFERENCES tenants (id),
  available INTEGER CHECK (available >= 0),
  reserved  INTEGER NOT NULL CHECK (reserved >= 0),
  captured  INTEGER NOT NULL CHECK (captured >= 0),
  version   INTEGER NOT NULL
);

-- Double entry: what from_account gives, to_account takes. Rows are only ever added.
CREATE TABLE ledger (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant       TEXT NOT NULL REFERENCES tenants (id),
  campaign     INTEGER NOT NULL,
  from_account TEXT NOT NULL,
  to_account   TEXT NOT NULL,
  micros       INTEGER NOT NULL CHECK (micros > 0),
  note         TEXT NOT NULL,
  time_ms      INTEGER NOT NULL
);
CREATE INDEX ledger_tenant ON ledger (tenant, campaign, id);
