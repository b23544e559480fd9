-- +goose Up
-- Hosts of links. The resource of kind domain has what people write; this row has the same and what is counted: messages that have a
-- link on it, in all and of the UTC day number day. tenant is '' for a domain of the installation. A deleted domain stays as a row until
-- its tombstone is published, and comes back with a higher version.
CREATE TABLE domains (
  host              TEXT NOT NULL PRIMARY KEY,
  tenant            TEXT NOT NULL,
  number            INTEGER NOT NULL,
  kind              TEXT NOT NULL,
  status            TEXT NOT NULL,
  weight            INTEGER NOT NULL,
  daily_limit       INTEGER NOT NULL,
  total_limit       INTEGER NOT NULL,
  used              INTEGER NOT NULL CHECK (used >= 0),
  used_day          INTEGER NOT NULL CHECK (used_day >= 0),
  day               INTEGER NOT NULL,
  health            TEXT NOT NULL,
  health_reason     TEXT NOT NULL,
  certificate_ms    INTEGER NOT NULL,
  checked_ms        INTEGER NOT NULL,
  deleted           BOOLEAN NOT NULL,
  version           INTEGER NOT NULL,
  published_version INTEGER NOT NULL,
  created_ms        INTEGER NOT NULL,
  updated_ms        INTEGER NOT NULL
);
CREATE INDEX domains_outbox ON domains (host) WHERE version > published_version;
CREATE INDEX domains_pool ON domains (tenant, kind, host);

-- What is reserved of the limits of domains: which recipients of a campaign have which domain. Rows are added and never changed, so
-- that a recipient keeps its domain. shares is a DomainBlock as JSON.
CREATE TABLE domain_shares (
  tenant    TEXT NOT NULL,
  campaign  INTEGER NOT NULL,
  blob      INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  end_seq   INTEGER NOT NULL,
  day       INTEGER NOT NULL,
  shares    TEXT NOT NULL,
  PRIMARY KEY (campaign, blob, first_seq)
);
CREATE INDEX domain_shares_tenant ON domain_shares (tenant, campaign);
