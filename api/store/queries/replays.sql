-- name: InsertReplay :exec
INSERT INTO replays (tenant, campaign, origin, freeze_id, selection, selected, members, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: GetReplay :one
SELECT * FROM replays WHERE tenant = ? AND campaign = ?;

-- name: ListReplays :many
SELECT campaign, origin, selection, selected, created_ms FROM replays WHERE tenant = ? AND origin = ? ORDER BY campaign LIMIT 1000;

-- name: ReplayOrigin :one
SELECT campaign, origin, selection, selected, created_ms FROM replays WHERE tenant = ? AND campaign = ?;

-- name: OptOutKeys :many
-- The opt-outs that hold, and those that were lifted after a time.
SELECT number_key FROM suppressions WHERE tenant = @tenant
  AND (channels & CAST(@channels AS INTEGER) <> 0 OR updated_ms > CAST(@since AS INTEGER) AND channels_before & CAST(@channels AS INTEGER) <> 0);

-- name: OptedInContacts :many
SELECT number FROM contacts WHERE tenant = ? AND opt_in_ms > 0;

-- name: UnfitContacts :many
SELECT number, CAST(deleted_ms > 0 AS BOOLEAN) AS gone FROM contacts WHERE tenant = ? AND (NOT valid OR deleted_ms > 0);
