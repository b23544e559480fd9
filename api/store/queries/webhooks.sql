-- name: WebhookResources :many
SELECT * FROM resources WHERE kind = 'webhook' AND status = 'active' AND deleted_ms = 0 ORDER BY number;

-- name: CounterValue :one
SELECT next FROM counters WHERE name = ?;

-- name: AddWebhookHealth :exec
INSERT INTO webhook_health (endpoint, tenant, owner, lease_ms, not_before_ms, failures, failing_ms, succeeded_ms, recover_ms)
VALUES (?, ?, '', 0, 0, 0, 0, 0, 0) ON CONFLICT (endpoint) DO NOTHING;

-- name: RenewWebhooks :exec
UPDATE webhook_health SET lease_ms = CAST(@until AS INTEGER) WHERE owner = @owner AND lease_ms > CAST(@now AS INTEGER);

-- name: CountOwnedWebhooks :one
SELECT COUNT(*) FROM webhook_health WHERE owner = ? AND lease_ms > ?;

-- name: ClaimWebhooks :exec
-- Of two processes that claim at once, the second finds the lease taken.
UPDATE webhook_health SET owner = @owner, lease_ms = CAST(@until AS INTEGER)
WHERE lease_ms <= CAST(@now AS INTEGER) AND endpoint IN
  (SELECT w.endpoint FROM webhook_health w WHERE w.lease_ms <= CAST(@now AS INTEGER) ORDER BY w.endpoint LIMIT @max);

-- name: ReleaseWebhooks :exec
UPDATE webhook_health SET lease_ms = 0 WHERE owner = ?;

-- name: OwnedWebhooks :many
-- The least due time of what is pending is one look into the index of each endpoint.
SELECT endpoint, tenant, not_before_ms, failures, failing_ms, succeeded_ms, recover_ms,
  CAST(COALESCE((SELECT MIN(i.due_ms) FROM webhook_items i WHERE i.endpoint = webhook_health.endpoint AND i.state = 0), 0) AS INTEGER) AS due_ms
FROM webhook_health WHERE owner = ? AND lease_ms > ? ORDER BY endpoint;

-- name: WebhookHealth :one
SELECT * FROM webhook_health WHERE endpoint = ? AND tenant = ?;

-- name: CountPendingWebhooks :one
SELECT COUNT(*) FROM (SELECT 1 FROM webhook_items WHERE endpoint = ? AND state = 0 LIMIT 10000) AS pending;

-- name: DueWebhooks :many
-- Of each ordering only the first pending one.
SELECT sqlc.embed(i), COALESCE(r.reference, '') AS reference FROM webhook_items i
LEFT JOIN webhook_references r ON r.tenant = i.tenant AND r.message = i.ordering
WHERE i.endpoint = @endpoint AND i.state = 0 AND i.due_ms <= @now AND NOT EXISTS
  (SELECT 1 FROM webhook_items b WHERE b.endpoint = i.endpoint AND b.ordering = i.ordering AND b.state = 0 AND b.id < i.id)
ORDER BY i.due_ms, i.id LIMIT @max;

-- name: SettleWebhook :exec
UPDATE webhook_items SET state = ?, data = ?, tries = ?, due_ms = ?, tried_ms = ?, status = ?, answer = ?, failure = ?, took_ms = ? WHERE id = ?;

-- name: SettleWebhookHealth :exec
UPDATE webhook_health SET not_before_ms = ?, failures = ?, failing_ms = ?, succeeded_ms = ? WHERE endpoint = ?;

-- name: HurryWebhook :exec
-- The next try is made at once, whatever the endpoint did before.
UPDATE webhook_health SET not_before_ms = 0 WHERE endpoint = ? AND tenant = ?;

-- name: ResetWebhookHealth :exec
UPDATE webhook_health SET not_before_ms = 0, failures = 0, failing_ms = 0 WHERE endpoint = ?;

-- name: RecoverWebhookItems :execrows
UPDATE webhook_items SET state = 0, tries = 0, due_ms = @now WHERE tenant = @tenant AND endpoint = @endpoint AND state = 2 AND time_ms >= @since;

-- name: RecoverWebhook :execrows
UPDATE webhook_health SET recover_ms = CASE WHEN recover_ms > 0 AND recover_ms < CAST(@since AS INTEGER) THEN recover_ms ELSE CAST(@since AS INTEGER) END,
  not_before_ms = 0 WHERE endpoint = @endpoint AND tenant = @tenant;

-- name: RecoveredWebhook :exec
UPDATE webhook_health SET recover_ms = 0 WHERE endpoint = ? AND recover_ms = ?;

-- name: ListWebhookItems :many
-- state below 0 is any; below is the id of the last one seen, 0 for the newest.
SELECT sqlc.embed(i), COALESCE(r.reference, '') AS reference FROM webhook_items i
LEFT JOIN webhook_references r ON r.tenant = i.tenant AND r.message = i.ordering
WHERE i.endpoint = @endpoint AND i.tenant = @tenant
  AND (CAST(@state AS INTEGER) < 0 OR i.state = CAST(@state AS INTEGER)) AND (CAST(@below AS INTEGER) = 0 OR i.id < CAST(@below AS INTEGER))
ORDER BY i.id DESC LIMIT @max;

-- name: WebhookItem :one
SELECT * FROM webhook_items WHERE tenant = ? AND endpoint = ? AND event_id = ?;

-- name: WebhookEndpointsOfItems :many
SELECT w.endpoint, CAST(COALESCE(r.deleted_ms, 1) AS INTEGER) AS deleted_ms FROM webhook_health w LEFT JOIN resources r ON r.number = w.endpoint ORDER BY w.endpoint;

-- name: OldestWebhookItems :many
SELECT id, state, queued_ms FROM webhook_items WHERE endpoint = ? ORDER BY id LIMIT ?;

-- name: DropWebhookItems :execrows
-- Those up to an id that were queued before one time, or have ended and were queued before another.
DELETE FROM webhook_items WHERE endpoint = @endpoint AND id <= @last
  AND (queued_ms < CAST(@all_before AS INTEGER) OR state <> 0 AND queued_ms < CAST(@ended_before AS INTEGER));

-- name: DropWebhookHealth :exec
DELETE FROM webhook_health WHERE endpoint = ?;

-- name: DropWebhookReferences :execrows
DELETE FROM webhook_references WHERE seen_ms < ?;
