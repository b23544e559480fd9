-- +goose Up
-- A job is work of a tenant that takes longer than a request: an export, or the filling of a segment. Any process with
-- the API runs it, step by step. A step writes its result, the cursor and the figures in one transaction, so that
-- another process goes on exactly behind it. owner is the process that runs it, '' when none does; claims counts how
-- often it was begun; total is -1 until it is known; list is the contact list that a segment fills, else 0. options is
-- a JSON object.
CREATE TABLE jobs (
  id          TEXT NOT NULL PRIMARY KEY,
  tenant      TEXT NOT NULL REFERENCES tenants (id),
  kind        TEXT NOT NULL,
  state       TEXT NOT NULL,
  error       TEXT NOT NULL,
  test        BOOLEAN NOT NULL,
  by_whom     TEXT NOT NULL,
  options     TEXT NOT NULL,
  list        INTEGER NOT NULL,
  position    TEXT NOT NULL,
  done        INTEGER NOT NULL,
  total       INTEGER NOT NULL,
  bytes       INTEGER NOT NULL,
  owner       TEXT NOT NULL,
  claims      INTEGER NOT NULL,
  cancel      BOOLEAN NOT NULL,
  started_ms  INTEGER NOT NULL,
  seen_ms     INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL
);
CREATE INDEX jobs_tenant ON jobs (tenant, kind, started_ms);
CREATE INDEX jobs_waiting ON jobs (started_ms) WHERE finished_ms = 0;
CREATE INDEX jobs_finished ON jobs (finished_ms) WHERE finished_ms > 0;

-- No tenant: a part is reached only through its job. Part 0 is the plan of the job, the others are what its steps made.
-- data is compressed.
CREATE TABLE job_parts (
  job  TEXT NOT NULL,
  part INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (job, part)
);
