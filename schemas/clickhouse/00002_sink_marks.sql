-- +goose Up
-- 5. how far each partition of a topic has been read, and as of when that is complete; as_of of the epoch: such a partition exists. One row for each partition stands, the others go
CREATE TABLE IF NOT EXISTS sink_marks
(
    topic           UUID,
    partition       Int32,
    next_offset     Int64,
    as_of           DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(as_of)
ORDER BY (topic, partition);
