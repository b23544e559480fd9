-- +goose Up

-- The relay polls the outbox many times a second, and mostly finds it empty. Each of its questions about campaigns has
-- a partial index that holds nothing but the answer, in the order of the question, so that no planner prefers to walk
-- over the whole table.
DROP INDEX campaigns_outbox;
CREATE INDEX campaigns_outbox ON campaigns (updated_ms) WHERE version > published_version AND tombstone = 0;
CREATE INDEX campaigns_tombstones ON campaigns (number) WHERE tombstone = 1;
