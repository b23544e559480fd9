-- +goose Up
-- A file that was uploaded, until it is imported or a day has passed. bytes counts it as it came; complete is false
-- while it arrives.
CREATE TABLE uploads (
  id       TEXT NOT NULL PRIMARY KEY,
  tenant   TEXT NOT NULL REFERENCES tenants (id),
  source   TEXT NOT NULL,
  format   TEXT NOT NULL,
  charset  TEXT NOT NULL,
  bytes    INTEGER NOT NULL,
  complete BOOLEAN NOT NULL,
  seen_ms  INTEGER NOT NULL
);
CREATE INDEX uploads_seen ON uploads (seen_ms);

-- No tenant: a part is read only by the id of its upload. data is compressed.
CREATE TABLE upload_parts (
  upload TEXT NOT NULL,
  part   INTEGER NOT NULL,
  data   BLOB NOT NULL,
  PRIMARY KEY (upload, part)
);

-- upload is '' of an import whose file came with the request. Of the others, owner is the process that runs it, '' when
-- none does; claims counts how often it was begun; options is a JSON object; bytes is what the file has and bytes_read
-- how far it was read.
ALTER TABLE imports ADD COLUMN upload TEXT NOT NULL DEFAULT '';
ALTER TABLE imports ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE imports ADD COLUMN claims INTEGER NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN options TEXT NOT NULL DEFAULT '';
ALTER TABLE imports ADD COLUMN cancel BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE imports ADD COLUMN opted_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN bytes_read INTEGER NOT NULL DEFAULT 0;
CREATE INDEX imports_waiting ON imports (started_ms) WHERE upload <> '' AND finished_ms = 0;

-- The rows that an import refused, as JSON arrays: one for each transaction that met some. imports.rejected holds those
-- of imports that ran before there was this table.
CREATE TABLE import_rejects (
  import TEXT NOT NULL,
  part   INTEGER NOT NULL,
  data   TEXT NOT NULL,
  PRIMARY KEY (import, part)
);
