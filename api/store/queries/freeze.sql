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
-- Marked already; abandoned by their writer; left by their campaign, which was unscheduled; or past the last replay of it.
SELECT f.id, f.state FROM freezes f LEFT JOIN campaigns c ON c.tenant = f.tenant AND c.number = f.campaign AND c.freeze_id = f.id
WHERE f.state = 2
  OR (f.state = 0 AND f.seen_ms < @silent)
  OR (f.state = 1 AND f.seen_ms < @silent AND c.number IS NULL)
  OR (f.state = 1 AND c.ended_ms > 0 AND c.ended_ms < @ended)
ORDER BY f.id LIMIT 100;

-- name: DropIndex :exec
DELETE FROM freeze_index WHERE freeze_id = ?;

-- name: DropBlobs :execrows
DELETE FROM freeze_blobs WHERE freeze_blobs.freeze_id = @freeze_id AND freeze_blobs.part IN (
  SELECT b.part FROM freeze_blobs b WHERE b.freeze_id = @freeze_id LIMIT @max);

-- name: ForgetFreeze :exec
DELETE FROM freezes WHERE id = ? AND state = 2;
