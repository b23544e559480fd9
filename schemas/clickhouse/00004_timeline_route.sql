-- +goose Up
-- The timeline counts by route as well, for charts of a campaign's throughput. Rows from before have no route.
ALTER TABLE timeline ADD COLUMN IF NOT EXISTS route LowCardinality(String), MODIFY ORDER BY (tenant_id, campaign_id, campaign_month, second, kind, route);

ALTER TABLE timeline_mv MODIFY QUERY
SELECT tenant_id, campaign_id, campaign_month, toInt8(kind) AS kind, toDateTime(event_time, 'UTC') AS second, route, count() AS n
FROM events GROUP BY tenant_id, campaign_id, campaign_month, kind, second, route;
