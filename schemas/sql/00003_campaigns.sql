-- +goose Up

-- spec and legs are JSON documents of what the user said and of what was confirmed: a field more needs no migration.
-- What is searched, sorted or counted has a column of its own; search is the name in lower case, tags are `|a|b|` in
-- lower case. hidden_day is '' but for the campaigns of single sends: the UTC day, and '#2' and so on when a day needs
-- another. removed: gone from lists too, unless they are asked for with what was deleted.
-- tombstone: 0 the row is on its topic, 1 its tombstone is to be published, 2 it has been.
CREATE TABLE campaigns (
  number            INTEGER NOT NULL PRIMARY KEY,
  tenant            TEXT NOT NULL REFERENCES tenants (id),
  version           INTEGER NOT NULL,
  published_version INTEGER NOT NULL,
  tombstone         INTEGER NOT NULL,
  state             INTEGER NOT NULL,
  reason            TEXT NOT NULL,
  hidden            BOOLEAN NOT NULL,
  hidden_day        TEXT NOT NULL,
  test              BOOLEAN NOT NULL,
  name              TEXT NOT NULL,
  search            TEXT NOT NULL,
  tags              TEXT NOT NULL,
  channel           INTEGER NOT NULL,
  region            TEXT NOT NULL,
  currency          TEXT NOT NULL,
  spec              TEXT NOT NULL,
  legs              TEXT NOT NULL,
  quote_version     TEXT NOT NULL,
  quote_cost        INTEGER NOT NULL,
  quote_contacts    INTEGER NOT NULL,
  freeze_id         TEXT NOT NULL,
  total             INTEGER NOT NULL,
  reserved          INTEGER NOT NULL CHECK (reserved >= 0),
  captured          INTEGER NOT NULL CHECK (captured >= 0),
  created_by        TEXT NOT NULL,
  confirmed_by      TEXT NOT NULL,
  created_ms        INTEGER NOT NULL,
  updated_ms        INTEGER NOT NULL,
  confirmed_ms      INTEGER NOT NULL,
  scheduled_ms      INTEGER NOT NULL,
  started_ms        INTEGER NOT NULL,
  completed_ms      INTEGER NOT NULL,
  settled_ms        INTEGER NOT NULL,
  ended_ms          INTEGER NOT NULL,
  deleted_ms        INTEGER NOT NULL,
  removed           BOOLEAN NOT NULL
);
CREATE INDEX campaigns_tenant ON campaigns (tenant, number);
CREATE INDEX campaigns_outbox ON campaigns (number) WHERE version > published_version;
CREATE INDEX campaigns_ended ON campaigns (ended_ms) WHERE ended_ms > 0 AND tombstone = 0;
CREATE UNIQUE INDEX campaigns_hidden ON campaigns (tenant, hidden_day) WHERE hidden_day <> '';

-- What happened to a campaign. Rows are only ever added.
CREATE TABLE campaign_events (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant     TEXT NOT NULL REFERENCES tenants (id),
  campaign   INTEGER NOT NULL REFERENCES campaigns (number),
  version    INTEGER NOT NULL,
  from_state INTEGER NOT NULL,
  to_state   INTEGER NOT NULL,
  cause      TEXT NOT NULL,
  actor      TEXT NOT NULL,
  by_whom    TEXT NOT NULL,
  request_id TEXT NOT NULL,
  reason     TEXT NOT NULL,
  time_ms    INTEGER NOT NULL
);
CREATE INDEX campaign_events_campaign ON campaign_events (tenant, campaign, id);

-- Frozen audiences. A freeze writes its blobs under a fresh random id (state 0) and becomes an audience when its
-- campaign takes that id (1). Until then anybody may throw it away once its writer has been silent for a while
-- (seen_ms): it is marked first (2), which its writer meets should it live after all, then its blobs go, then the row.
CREATE TABLE freezes (
  id       TEXT NOT NULL PRIMARY KEY,
  tenant   TEXT NOT NULL REFERENCES tenants (id),
  campaign INTEGER NOT NULL,
  state    INTEGER NOT NULL,
  seen_ms  INTEGER NOT NULL
);
CREATE INDEX freezes_campaign ON freezes (tenant, campaign);

-- The next two have no tenant: they are read only by a freeze id, which is 128 random bits of one campaign.
CREATE TABLE freeze_blobs (
  freeze_id TEXT NOT NULL,
  part      INTEGER NOT NULL,
  data      BLOB NOT NULL,
  PRIMARY KEY (freeze_id, part)
);

CREATE TABLE freeze_index (
  freeze_id TEXT NOT NULL,
  blob      INTEGER NOT NULL,
  part      INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  count     INTEGER NOT NULL,
  zone      TEXT NOT NULL,
  PRIMARY KEY (freeze_id, blob)
);

-- reserved is what the owner of a key has set aside before doing anything, such as message ids; token tells the owner
-- from one who took over an abandoned key.
CREATE TABLE idempotency (
  tenant     TEXT NOT NULL REFERENCES tenants (id),
  route      TEXT NOT NULL,
  key        TEXT NOT NULL,
  body_hash  BLOB NOT NULL,
  token      INTEGER NOT NULL,
  done       BOOLEAN NOT NULL,
  status     INTEGER NOT NULL,
  response   BLOB,
  reserved   BLOB,
  created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, route, key)
);
CREATE INDEX idempotency_created ON idempotency (created_ms);
