-- name: CampaignKey :one
-- What campaign_counts counts a campaign under, before the campaign is updated.
SELECT version, hidden, state, channel, test, removed, reserved, captured, tags, figures_kept, created_ms FROM campaigns WHERE tenant = ? AND number = ?;

-- name: MoveCampaignCount :execrows
UPDATE campaign_counts SET n = n + CAST(@n AS INTEGER), reserved = reserved + CAST(@reserved AS INTEGER), captured = captured + CAST(@captured AS INTEGER)
WHERE tenant = @tenant AND state = @state AND channel = @channel AND test = @test AND removed = @removed;

-- name: AddCampaignCount :exec
-- When MoveCampaignCount finds no row. Another transaction may add it at the same time.
INSERT INTO campaign_counts (tenant, state, channel, test, removed, n, reserved, captured)
VALUES (@tenant, @state, @channel, @test, @removed, @n, @reserved, @captured)
ON CONFLICT (tenant, state, channel, test, removed) DO UPDATE SET n = campaign_counts.n + excluded.n,
  reserved = campaign_counts.reserved + excluded.reserved, captured = campaign_counts.captured + excluded.captured;

-- name: ListCampaignCounts :many
SELECT * FROM campaign_counts WHERE tenant = ? AND n > 0 ORDER BY state, channel, test, removed;

-- name: AddCampaignTag :exec
INSERT INTO campaign_tags (tenant, tag, number) VALUES (?, ?, ?) ON CONFLICT (tenant, tag, number) DO NOTHING;

-- name: DropCampaignTag :exec
DELETE FROM campaign_tags WHERE tenant = ? AND tag = ? AND number = ?;

-- name: UnkeptFigures :many
-- Campaigns whose figures are not kept yet: those that run, those that have just ended.
SELECT number, state, total, captured, completed_ms, settled_ms, ended_ms, created_ms FROM campaigns
WHERE tenant = @tenant AND NOT figures_kept AND confirmed_ms > 0 AND NOT hidden AND NOT test AND NOT removed AND number > @above
ORDER BY number LIMIT @max;

-- name: MarkFiguresKept :execrows
UPDATE campaigns SET figures_kept = TRUE WHERE tenant = ? AND number = ? AND NOT removed;

-- name: CountStates :many
-- Of the campaigns created in a time: counted, since the kept counts know no time.
SELECT state, COUNT(*) AS n FROM campaigns
WHERE tenant = @tenant AND NOT hidden AND NOT test AND NOT removed AND created_ms >= @from_ms AND created_ms < @to_ms
GROUP BY state ORDER BY state;

-- name: CampaignsByNumber :many
-- The caller pads the numbers, so that there are few texts to be prepared.
SELECT * FROM campaigns WHERE tenant = ? AND number IN (sqlc.slice('numbers'));


-- name: CountTag :one
SELECT COUNT(*) FROM campaign_tags WHERE tenant = ? AND tag = ?;

-- name: ListTags :many
SELECT tag, COUNT(*) AS n FROM campaign_tags WHERE tenant = ? GROUP BY tag ORDER BY tag;

-- name: TaggedCampaigns :many
SELECT number FROM campaign_tags WHERE tenant = @tenant AND tag = @tag AND number > @after ORDER BY number LIMIT @max;
