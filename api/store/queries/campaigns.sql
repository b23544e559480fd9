-- name: InsertCampaign :exec
INSERT INTO campaigns (number, tenant, version, published_version, tombstone, state, reason, hidden, hidden_day, test, name, search,
  tags, channel, region, currency, spec, legs, quote_version, quote_cost, quote_contacts, freeze_id, total, reserved, captured,
  created_by, confirmed_by, created_ms, updated_ms, confirmed_ms, scheduled_ms, started_ms, completed_ms, settled_ms, ended_ms, deleted_ms, removed)
VALUES (?, ?, 1, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: GetCampaign :one
SELECT * FROM campaigns WHERE tenant = ? AND number = ?;

-- name: UpdateCampaign :execrows
-- Every column that may ever change, under one compare-and-set.
UPDATE campaigns SET version = version + 1, state = ?, reason = ?, test = ?, name = ?, search = ?, tags = ?, channel = ?,
  spec = ?, legs = ?, quote_version = ?, quote_cost = ?, quote_contacts = ?, freeze_id = ?, total = ?, reserved = ?, captured = ?,
  confirmed_by = ?, updated_ms = ?, confirmed_ms = ?, scheduled_ms = ?, started_ms = ?, completed_ms = ?, settled_ms = ?,
  ended_ms = ?, deleted_ms = ?, removed = ?
WHERE tenant = ? AND number = ? AND version = ?;

-- name: CampaignsIn :many
-- The campaigns of a tenant in these states, a set of bits, oldest first.
SELECT * FROM campaigns WHERE tenant = @tenant AND NOT hidden AND (CAST(@states AS INTEGER) >> CAST(state AS INT)) & 1 = 1 ORDER BY number;

-- name: CountActive :one
SELECT CAST(COALESCE(SUM(n), 0) AS INTEGER) FROM campaign_counts
WHERE tenant = @tenant AND (CAST(@states AS INTEGER) >> CAST(state AS INT)) & 1 = 1;

-- name: InsertEvent :exec
INSERT INTO campaign_events (tenant, campaign, version, from_state, to_state, cause, actor, by_whom, request_id, reason, time_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: ListEvents :many
SELECT * FROM campaign_events WHERE tenant = ? AND campaign = ? ORDER BY id;

-- name: GetHidden :one
SELECT * FROM campaigns WHERE tenant = ? AND hidden_day = ?;

-- name: UnpublishedCampaigns :many
-- By index campaigns_outbox: the oldest change first.
SELECT * FROM campaigns WHERE version > published_version AND tombstone = 0 ORDER BY updated_ms LIMIT ?;

-- name: PublishedCampaign :exec
UPDATE campaigns SET published_version = version WHERE tenant = ? AND number = ? AND version = ? AND tombstone = 0;

-- name: RepublishCampaign :execrows
-- What is a tombstone already is published as one again.
UPDATE campaigns SET published_version = 0, tombstone = CASE WHEN tombstone = 2 THEN 1 ELSE tombstone END
WHERE tenant = ? AND number = ?;

-- name: RepublishedTombstones :many
-- By index campaigns_tombstones.
SELECT tenant, number, version FROM campaigns WHERE tombstone = 1 ORDER BY number LIMIT ?;

-- name: DueTombstones :many
-- By index campaigns_ended.
SELECT tenant, number, version FROM campaigns WHERE ended_ms > 0 AND ended_ms < @before AND tombstone = 0 ORDER BY ended_ms LIMIT @max;

-- name: PublishedTombstone :exec
UPDATE campaigns SET tombstone = 2, published_version = version WHERE tenant = ? AND number = ?;

-- name: BeginKey :execrows
INSERT INTO idempotency (tenant, route, key, body_hash, token, done, status, response, reserved, created_ms, updated_ms)
VALUES (@tenant, @route, @key, @body_hash, 1, FALSE, 0, NULL, NULL, @now, @now)
ON CONFLICT (tenant, route, key) DO NOTHING;

-- name: GetIdempotency :one
SELECT * FROM idempotency WHERE tenant = ? AND route = ? AND key = ?;

-- name: TakeKey :execrows
-- Takes over a key whose owner reserved nothing and was not heard of since.
UPDATE idempotency SET token = token + 1, updated_ms = @now
WHERE tenant = @tenant AND route = @route AND key = @key AND token = @token AND NOT done AND reserved IS NULL;

-- name: RenewKey :execrows
-- A key that is older than its time is as good as new.
UPDATE idempotency SET token = token + 1, body_hash = @body_hash, done = FALSE, status = 0, response = NULL, reserved = NULL,
  created_ms = @now, updated_ms = @now
WHERE tenant = @tenant AND route = @route AND key = @key AND token = @token;

-- name: ReserveKey :execrows
UPDATE idempotency SET reserved = ?, updated_ms = ? WHERE tenant = ? AND route = ? AND key = ? AND token = ? AND NOT done;

-- name: FinishKey :execrows
-- What was reserved is in the answer.
UPDATE idempotency SET done = TRUE, status = ?, response = ?, reserved = NULL, updated_ms = ?
WHERE tenant = ? AND route = ? AND key = ? AND token = ? AND NOT done;

-- name: ForgetKey :execrows
DELETE FROM idempotency WHERE tenant = ? AND route = ? AND key = ? AND token = ? AND NOT done;

-- name: DropKeys :execrows
-- What was reserved and never ended may have been sent: its key is not given away.
DELETE FROM idempotency WHERE created_ms < ? AND (done OR reserved IS NULL);

-- name: GetCampaignByNumber :one
-- Without a tenant: for the pipeline alone, which knows a campaign by the number in its ids.
SELECT * FROM campaigns WHERE number = ?;
