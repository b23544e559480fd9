-- +goose Up
-- What is in a blob of an audience, as hashes: a search among the recipients reads only the blobs that may have a match.
-- Audiences that were frozen before have no rows. No tenant, as in freeze_blobs.
CREATE TABLE freeze_filters (
  freeze_id TEXT NOT NULL,
  part      INTEGER NOT NULL,
  data      BLOB NOT NULL,
  PRIMARY KEY (freeze_id, part)
);
