-- name: InsertImport :exec
INSERT INTO imports (id, tenant, list, source, state, error, rows_read, total, imported, updated, unchanged, duplicates, invalid,
  unreachable, rejected, started_ms, seen_ms, finished_ms, upload, options, bytes)
VALUES (@id, @tenant, @list, @source, @state, '', 0, 0, 0, 0, 0, 0, 0, 0, '[]', @now, @now, 0, @upload, @options, @bytes);

-- name: UpdateImport :one
-- Writes the figures, if the import is still its owner's, and tells whether somebody wants it to end.
UPDATE imports SET state = @state, error = @error, rows_read = @rows_read, total = @total, imported = @imported, updated = @updated,
  unchanged = @unchanged, duplicates = @duplicates, invalid = @invalid, unreachable = @unreachable, opted_out = @opted_out,
  bytes_read = @bytes_read, seen_ms = @seen_ms, finished_ms = @finished_ms
WHERE tenant = @tenant AND id = @id AND owner = @owner
RETURNING cancel;

-- name: ClaimImport :one
-- Gives the import that has waited longest to a process: one that no process runs, or whose process has been silent.
UPDATE imports SET state = 'running', owner = @owner, claims = claims + 1, seen_ms = @now
WHERE id = (SELECT i.id FROM imports i WHERE i.upload <> '' AND i.finished_ms = 0 AND (i.owner = '' OR i.seen_ms < @silent) ORDER BY i.started_ms, i.id LIMIT 1)
  AND finished_ms = 0 AND (owner = '' OR seen_ms < @silent)
RETURNING *;

-- name: ReleaseImport :exec
-- Gives an import back that its process cannot run on, at a stop.
UPDATE imports SET owner = '', claims = claims - 1 WHERE tenant = @tenant AND id = @id AND owner = @owner AND finished_ms = 0;

-- name: CancelImport :execrows
-- Ends an import at once when no process runs it, else has its process end it.
UPDATE imports SET cancel = TRUE, state = CASE WHEN upload <> '' AND owner = '' THEN 'cancelled' ELSE state END,
  finished_ms = CASE WHEN upload <> '' AND owner = '' THEN CAST(@now AS INTEGER) ELSE finished_ms END
WHERE tenant = @tenant AND id = @id AND finished_ms = 0;

-- name: EndImports :exec
UPDATE imports SET state = 'failed', error = @error, finished_ms = @now WHERE state = 'running' AND upload = '' AND seen_ms < @silent;

-- name: GetImport :one
SELECT * FROM imports WHERE tenant = ? AND id = ?;

-- name: ListImports :many
-- Newest first, after the import that began at before_ms and has the id above.
SELECT * FROM imports WHERE tenant = @tenant AND (CAST(@list AS INTEGER) = 0 OR list = CAST(@list AS INTEGER))
  AND (started_ms < CAST(@before_ms AS INTEGER) OR started_ms = CAST(@before_ms AS INTEGER) AND id > CAST(@above AS TEXT))
ORDER BY started_ms DESC, id LIMIT @max OFFSET @skip;

-- name: CountImports :one
SELECT COUNT(*) FROM imports WHERE tenant = @tenant AND (CAST(@list AS INTEGER) = 0 OR list = CAST(@list AS INTEGER));

-- name: InsertReject :exec
INSERT INTO import_rejects (import, part, data) VALUES (@import, (SELECT COALESCE(MAX(r.part), 0) + 1 FROM import_rejects r WHERE r.import = @import), @data);

-- name: ListRejects :many
SELECT part, data FROM import_rejects WHERE import = @import AND part > @after ORDER BY part LIMIT @max;

-- name: InsertUpload :exec
INSERT INTO uploads (id, tenant, source, format, charset, bytes, complete, seen_ms) VALUES (@id, @tenant, @source, @format, @charset, 0, FALSE, @now);

-- name: GrowUpload :execrows
UPDATE uploads SET bytes = bytes + @bytes, seen_ms = @now WHERE id = @id AND NOT complete;

-- name: CompleteUpload :execrows
UPDATE uploads SET complete = TRUE, format = @format, seen_ms = @now WHERE id = @id;

-- name: GetUpload :one
SELECT * FROM uploads WHERE tenant = ? AND id = ? AND complete;

-- name: InsertUploadPart :exec
INSERT INTO upload_parts (upload, part, data) VALUES (?, ?, ?);

-- name: GetUploadPart :one
SELECT data FROM upload_parts WHERE upload = ? AND part = ?;

-- name: GoneUploads :many
-- Uploads that no import uses any more.
SELECT uploads.id FROM uploads WHERE uploads.seen_ms < @before AND NOT EXISTS (SELECT 1 FROM imports i WHERE i.upload = uploads.id AND i.finished_ms = 0) LIMIT 100;

-- name: DropUploadParts :execrows
DELETE FROM upload_parts WHERE upload_parts.upload = @upload AND upload_parts.part IN (
  SELECT p.part FROM upload_parts p WHERE p.upload = @upload ORDER BY p.part LIMIT @max);

-- name: DropUpload :exec
DELETE FROM uploads WHERE id = ?;

-- name: DropRejects :exec
-- Refused rows are kept for a month.
DELETE FROM import_rejects WHERE import IN (SELECT i.id FROM imports i WHERE i.finished_ms > 0 AND i.finished_ms < @before);
