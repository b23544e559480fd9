-- name: InsertFreeze :exec
INSERT INTO freezes (id, tenant, campaign, state, seen_ms) VALUES (?, ?, ?, 0, ?);

-- name: TouchFreeze :execrows
UPDATE freezes SET seen_ms = ? WHERE id = ? AND state = 0;

-- name: PublishFreeze :execrows
UPDATE freezes SET state = 1, seen_ms = ? WHERE id = ? AND state = 0;

-- name: DropFreeze :execrows
UPDATE freezes SET state = 2 WHERE id = ? AND state = ?;

-- name: InsertBlob :exec
INSERT INTO freeze_blobs (freeze_id, part, data) VALUES (?, ?, ?);

-- name: InsertFilter :exec
INSERT INTO freeze_filters (freeze_id, part, data) VALUES (?, ?, ?);

-- name: UpdateFilter :exec
UPDATE freeze_filters SET data = @data WHERE freeze_id = @freeze_id AND part = @part;

-- name: DropFilters :exec
DELETE FROM freeze_filters WHERE freeze_id = ?;

-- name: InsertIndex :exec
INSERT INTO freeze_index (freeze_id, blob, part, first_seq, count, zone) VALUES (?, ?, ?, ?, ?, ?);

-- name: FreezePublished :one
SELECT COUNT(*) FROM freezes WHERE id = ? AND state = 1;

-- name: ListIndex :many
SELECT blob, first_seq, count, zone FROM freeze_index WHERE freeze_id = ? ORDER BY blob;

-- name: GetBlob :one
SELECT b.data FROM freeze_index i JOIN freeze_blobs b ON b.freeze_id = i.freeze_id AND b.part = i.part
WHERE i.freeze_id = ? AND i.blob = ?;

-- name: GarbageFreezes :many
-- Marked already; abandoned by their writer; left by their campaign, which was unscheduled; or past the last replay of
-- it, unless a confirmed replay has still to take its people from it.
SELECT f.id, f.state FROM freezes f LEFT JOIN campaigns c ON c.tenant = f.tenant AND c.number = f.campaign AND c.freeze_id = f.id
WHERE f.state = 2
  OR (f.state = 0 AND f.seen_ms < @silent)
  OR (f.state = 1 AND f.seen_ms < @silent AND c.number IS NULL)
  OR (f.state = 1 AND c.ended_ms > 0 AND c.ended_ms < @ended AND NOT EXISTS (
    SELECT 1 FROM replays r JOIN campaigns p ON p.tenant = r.tenant AND p.number = r.campaign
    WHERE r.freeze_id = f.id AND p.confirmed_ms > 0 AND p.freeze_id = '' AND p.ended_ms = 0))
ORDER BY f.id LIMIT 100;

-- name: DropIndex :exec
DELETE FROM freeze_index WHERE freeze_id = ?;

-- name: DropBlobs :execrows
DELETE FROM freeze_blobs WHERE freeze_blobs.freeze_id = @freeze_id AND freeze_blobs.part IN (
  SELECT b.part FROM freeze_blobs b WHERE b.freeze_id = @freeze_id LIMIT @max);

-- name: ForgetFreeze :exec
DELETE FROM freezes WHERE id = ? AND state = 2;

-- name: InsertContacted :exec
INSERT INTO contacted (freeze_id, tenant, campaign, contacts, countries) VALUES (?, ?, ?, ?, ?);

-- name: NewestContacted :one
SELECT CAST(COALESCE(MAX(number), 0) AS INTEGER) FROM contacted WHERE tenant = ?;

-- name: DropContacted :exec
DELETE FROM contacted WHERE freeze_id = ?;

-- name: ContactedBetween :many
-- The audiences of campaigns that began, or are to begin, in a time. Not those that were cancelled or aborted before
-- they began, nor campaign, which asks.
SELECT k.contacts, k.countries,
  CAST(CASE WHEN c.started_ms > 0 THEN c.started_ms WHEN c.scheduled_ms > c.confirmed_ms THEN c.scheduled_ms ELSE c.confirmed_ms END AS INTEGER) AS at_ms
FROM contacted k JOIN campaigns c ON c.tenant = k.tenant AND c.number = k.campaign AND c.freeze_id = k.freeze_id
WHERE k.tenant = @tenant AND k.campaign <> @campaign AND NOT c.test AND (c.started_ms > 0 OR c.ended_ms = 0 AND c.state <> @aborted)
  AND CASE WHEN c.started_ms > 0 THEN c.started_ms WHEN c.scheduled_ms > c.confirmed_ms THEN c.scheduled_ms ELSE c.confirmed_ms END >= CAST(@from_ms AS INTEGER)
  AND CASE WHEN c.started_ms > 0 THEN c.started_ms WHEN c.scheduled_ms > c.confirmed_ms THEN c.scheduled_ms ELSE c.confirmed_ms END <= CAST(@to_ms AS INTEGER)
ORDER BY k.number;
