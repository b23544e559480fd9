-- +goose Up
-- Who was erased, for the record: rows are added, and told once when they ended. number_hash is the keyed hash of the
-- number that opt-outs have too, in hexadecimal; the number itself is nowhere. removed is a JSON object of what was
-- removed, '' until then.
CREATE TABLE erasures (
  id          TEXT NOT NULL PRIMARY KEY,
  tenant      TEXT NOT NULL REFERENCES tenants (id),
  number_hash TEXT NOT NULL,
  by_whom     TEXT NOT NULL,
  request_id  TEXT NOT NULL,
  removed     TEXT NOT NULL,
  ordered_ms  INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL
);
CREATE INDEX erasures_tenant ON erasures (tenant, ordered_ms);
