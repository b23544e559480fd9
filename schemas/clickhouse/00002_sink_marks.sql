-- +goose Up
-- 6. how far each partition of a topic is stored, and as of which time that is complete. An as_of of the epoch only
-- says that the partition exists. Merges keep one row per partition
CREATE TABLE IF NOT EXISTS sink_marks
(
    topic           UUID,
    partition       Int32,
    next_offset     Int64,
    as_of           DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(as_of)
ORDER BY (topic, partition);
