-- +goose Up

-- When campaigns of a route are suspended, and whether they are resumed. down_after_ms 0 and failure_percent 0: never for that.
ALTER TABLE routes ADD COLUMN down_after_ms INTEGER NOT NULL DEFAULT 60000;
ALTER TABLE routes ADD COLUMN failure_percent INTEGER NOT NULL DEFAULT 80;
ALTER TABLE routes ADD COLUMN failure_sample INTEGER NOT NULL DEFAULT 500;
ALTER TABLE routes ADD COLUMN auto_resume BOOLEAN NOT NULL DEFAULT TRUE;
-- The relay publishes the routes again, with their care.
UPDATE routes SET version = version + 1;
