-- +goose Up

-- TRUE: the route carries no campaigns of other routes, and no other route carries its campaigns.
ALTER TABLE routes ADD COLUMN no_failover BOOLEAN NOT NULL DEFAULT TRUE;
