-- name: Counter :one
-- Takes a block of numbers: [next - n, next). The row lock keeps two takers apart.
UPDATE counters SET next = next + CAST(@n AS INTEGER) WHERE name = @name RETURNING next;

-- name: InsertTenant :exec
INSERT INTO tenants (id, name, enabled, campaigns_enabled, region, timezone, currency, default_route, default_sender,
  max_active, max_contacts, max_segments, rate, weight, version, published_version, created_ms, updated_ms)
VALUES (@id, @name, @enabled, @campaigns_enabled, @region, @timezone, @currency, @default_route, @default_sender, @max_active,
  @max_contacts, @max_segments, @rate, @weight, 1, 0, @now, @now);

-- name: GetTenant :one
SELECT * FROM tenants WHERE id = ?;

-- name: GetTenantByName :one
SELECT * FROM tenants WHERE name = ?;

-- name: ListTenants :many
SELECT * FROM tenants ORDER BY created_ms, id;

-- name: UpdateTenant :execrows
UPDATE tenants SET name = ?, enabled = ?, campaigns_enabled = ?, region = ?, timezone = ?, currency = ?, default_route = ?,
  default_sender = ?, max_active = ?, max_contacts = ?, max_segments = ?, rate = ?, weight = ?, version = version + 1, updated_ms = ?
WHERE id = ? AND version = ?;

-- name: UnpublishedTenants :many
SELECT * FROM tenants WHERE version > published_version ORDER BY id LIMIT ?;

-- name: PublishedTenant :exec
UPDATE tenants SET published_version = version WHERE id = ? AND version = ?;

-- name: RepublishTenant :execrows
UPDATE tenants SET published_version = 0 WHERE id = ?;

-- name: InsertKey :exec
INSERT INTO api_keys (id, tenant, name, hint, hash, scopes, test, version, created_ms, used_ms, revoked_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, 0, 0);

-- name: KeyByHash :one
SELECT * FROM api_keys WHERE hash = ?;

-- name: ListKeys :many
SELECT * FROM api_keys WHERE tenant = ? ORDER BY created_ms, id;

-- name: RevokeKey :execrows
UPDATE api_keys SET revoked_ms = @now, version = version + 1 WHERE tenant = @tenant AND id = @id AND revoked_ms = 0;

-- name: KeyExists :one
SELECT COUNT(*) FROM api_keys WHERE tenant = ? AND id = ?;

-- name: KeyUsed :exec
UPDATE api_keys SET used_ms = ? WHERE id = ?;

-- name: InsertRoute :execrows
-- A route that comes back after a deletion goes on with its versions, for readers ignore older ones.
INSERT INTO routes (name, channels, connector, rate, burst, p99_ms, receipt_window_ms, enabled, configuration, credentials, credential_names,
  priority, share, cost, down_after_ms, failure_percent, failure_sample, auto_resume, no_failover, deleted, version, published_version, created_ms, updated_ms)
VALUES (@name, @channels, @connector, @rate, @burst, @p99_ms, @receipt_window_ms, @enabled, @configuration, @credentials, @credential_names,
  @priority, @share, @cost, @down_after_ms, @failure_percent, @failure_sample, @auto_resume, @no_failover, FALSE, 1, 0, @now, @now)
ON CONFLICT (name) DO UPDATE SET channels = excluded.channels, connector = excluded.connector, rate = excluded.rate, burst = excluded.burst,
  p99_ms = excluded.p99_ms, receipt_window_ms = excluded.receipt_window_ms, enabled = excluded.enabled, configuration = excluded.configuration,
  credentials = excluded.credentials, credential_names = excluded.credential_names, priority = excluded.priority, share = excluded.share,
  cost = excluded.cost, down_after_ms = excluded.down_after_ms, failure_percent = excluded.failure_percent,
  failure_sample = excluded.failure_sample, auto_resume = excluded.auto_resume,
  no_failover = excluded.no_failover, deleted = FALSE, version = routes.version + 1, created_ms = excluded.created_ms, updated_ms = excluded.updated_ms
WHERE routes.deleted;

-- name: UpdateRoute :execrows
UPDATE routes SET channels = @channels, connector = @connector, rate = @rate, burst = @burst, p99_ms = @p99_ms,
  receipt_window_ms = @receipt_window_ms, enabled = @enabled, configuration = @configuration, credentials = @credentials,
  credential_names = @credential_names, priority = @priority, share = @share, cost = @cost, down_after_ms = @down_after_ms,
  failure_percent = @failure_percent, failure_sample = @failure_sample, auto_resume = @auto_resume, no_failover = @no_failover, version = version + 1, updated_ms = @updated_ms
WHERE name = @name AND version = @version;

-- name: DeleteRoute :execrows
UPDATE routes SET deleted = TRUE, configuration = '', credentials = '', credential_names = '', version = version + 1, updated_ms = ?
WHERE name = ? AND version = ?;

-- name: RouteUses :one
-- The tenants whose default the route is, and the campaigns that may still send by it. field and value are the name as
-- it stands in a document, as the field Route and anywhere.
SELECT (SELECT COUNT(*) FROM tenants WHERE default_route = @name) AS tenants,
  (SELECT COUNT(*) FROM campaigns WHERE NOT hidden AND settled_ms = 0 AND ended_ms = 0 AND deleted_ms = 0
    AND (INSTR(legs, @value) > 0 OR INSTR(spec, @field) > 0)) AS campaigns;

-- name: GetRoute :one
SELECT * FROM routes WHERE name = ? AND NOT deleted;

-- name: ListRoutes :many
SELECT * FROM routes WHERE NOT deleted ORDER BY name;

-- name: UnpublishedRoutes :many
SELECT * FROM routes WHERE version > published_version ORDER BY name LIMIT ?;

-- name: PublishedRoute :exec
UPDATE routes SET published_version = version WHERE name = ? AND version = ?;

-- name: RepublishRoute :execrows
UPDATE routes SET published_version = 0 WHERE name = ?;

-- name: PutSender :one
-- A sender that comes back after a deletion goes on with its versions, for readers ignore older ones.
INSERT INTO senders (tenant, id, rate, deleted, version, published_version, created_ms, updated_ms)
VALUES (@tenant, @id, @rate, FALSE, 1, 0, @now, @now)
ON CONFLICT (tenant, id) DO UPDATE SET rate = excluded.rate, deleted = FALSE, version = senders.version + 1, updated_ms = excluded.updated_ms
RETURNING *;

-- name: GetSender :one
SELECT * FROM senders WHERE tenant = ? AND id = ? AND NOT deleted;

-- name: ListSenders :many
SELECT * FROM senders WHERE tenant = ? AND NOT deleted ORDER BY id;

-- name: DeleteSender :execrows
UPDATE senders SET deleted = TRUE, version = version + 1, updated_ms = ? WHERE tenant = ? AND id = ? AND NOT deleted;

-- name: UnpublishedSenders :many
SELECT * FROM senders WHERE version > published_version ORDER BY tenant, id LIMIT ?;

-- name: PublishedSender :exec
UPDATE senders SET published_version = version WHERE tenant = ? AND id = ? AND version = ?;

-- name: RepublishSender :execrows
UPDATE senders SET published_version = 0 WHERE tenant = ? AND id = ?;

-- name: ListPrices :many
SELECT * FROM prices WHERE tenant = ? ORDER BY channel;

-- name: SetPrice :exec
INSERT INTO prices (tenant, channel, micros, version, updated_ms) VALUES (?, ?, ?, 1, ?)
ON CONFLICT (tenant, channel) DO UPDATE SET micros = excluded.micros, version = prices.version + 1, updated_ms = excluded.updated_ms;

-- name: InsertBalance :exec
INSERT INTO balances (tenant, available, reserved, captured, version) VALUES (?, ?, 0, 0, 1);

-- name: GetBalance :one
SELECT * FROM balances WHERE tenant = ?;

-- name: LockBalance :execrows
-- Changes nothing: it takes the row's lock, so that whatever is checked next for this tenant stays true until commit.
UPDATE balances SET version = version WHERE tenant = ?;

-- name: AddOwed :exec
UPDATE balances SET owed = owed + CAST(@by AS INTEGER), version = version + 1 WHERE tenant = @tenant;

-- name: MoveBalance :execrows
-- NULL + n stays NULL: unlimited credit. The checks of the table refuse what would fall below zero.
UPDATE balances SET available = available + CAST(@available AS INTEGER), reserved = reserved + CAST(@reserved AS INTEGER),
  captured = captured + CAST(@captured AS INTEGER), version = version + 1
WHERE tenant = @tenant;

-- name: SetAvailable :execrows
UPDATE balances SET available = ?, version = version + 1 WHERE tenant = ?;

-- name: InsertLedger :exec
INSERT INTO ledger (tenant, campaign, from_account, to_account, micros, note, time_ms) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: ListLedger :many
SELECT * FROM ledger
WHERE tenant = @tenant AND (CAST(@campaign AS INTEGER) = 0 OR campaign = CAST(@campaign AS INTEGER))
ORDER BY id LIMIT @max OFFSET @skip;

-- name: NewestLedger :many
-- Newest first, below an entry.
SELECT * FROM ledger
WHERE tenant = @tenant AND (CAST(@campaign AS INTEGER) = 0 OR campaign = CAST(@campaign AS INTEGER)) AND id < @below
ORDER BY id DESC LIMIT @max OFFSET @skip;

-- name: CountLedger :one
SELECT COUNT(*) FROM ledger WHERE tenant = @tenant AND (CAST(@campaign AS INTEGER) = 0 OR campaign = CAST(@campaign AS INTEGER));
