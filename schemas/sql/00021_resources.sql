-- +goose Up

-- What a tenant keeps beside campaigns and contacts: templates, agents, channels and the like. Each kind has a Go type;
-- doc is its JSON document, so a field more needs no migration. What is searched or counted has a column of its own:
-- search is the name in lower case. tenant is '' for what belongs to the installation. A deleted row stays, and gives
-- its name free.
CREATE TABLE resources (
  number            INTEGER NOT NULL PRIMARY KEY,
  tenant            TEXT NOT NULL,
  kind              TEXT NOT NULL,
  name              TEXT NOT NULL,
  search            TEXT NOT NULL,
  status            TEXT NOT NULL,
  doc               TEXT NOT NULL,
  created_by        TEXT NOT NULL,
  version           INTEGER NOT NULL,
  published_version INTEGER NOT NULL,
  created_ms        INTEGER NOT NULL,
  updated_ms        INTEGER NOT NULL,
  deleted_ms        INTEGER NOT NULL
);
CREATE UNIQUE INDEX resources_name ON resources (tenant, kind, name) WHERE deleted_ms = 0;
CREATE INDEX resources_kind ON resources (tenant, kind, number);
INSERT INTO counters (name, next) VALUES ('resource', 10001);
