-- +goose Up

-- What a route's connector is opened with. configuration is JSON and may be read by operators. credentials is JSON too,
-- sealed by a key that is not in the store (package schemas/credentials), in base64; credential_names says which there
-- are. priority, share and cost choose among the routes of a channel. A deleted route stays as a row: its name comes
-- back with a higher version.
ALTER TABLE routes ADD COLUMN configuration TEXT NOT NULL DEFAULT '';
ALTER TABLE routes ADD COLUMN credentials TEXT NOT NULL DEFAULT '';
ALTER TABLE routes ADD COLUMN credential_names TEXT NOT NULL DEFAULT '';
ALTER TABLE routes ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE routes ADD COLUMN share INTEGER NOT NULL DEFAULT 1;
ALTER TABLE routes ADD COLUMN cost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE routes ADD COLUMN deleted BOOLEAN NOT NULL DEFAULT FALSE;
