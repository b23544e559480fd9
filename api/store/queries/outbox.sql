-- name: AnyUnpublished :one
-- What the relay asks many times a second: is there anything to publish? Each part is the first row of a partial index.
-- It is MIN and not EXISTS, because Postgres takes a third of all rows for unpublished, and would look for one of them
-- by reading the table.
SELECT CAST(CASE WHEN
     (SELECT MIN(c.updated_ms) FROM campaigns c WHERE c.version > c.published_version AND c.tombstone = 0) IS NOT NULL
  OR (SELECT MIN(a.number) FROM campaigns a WHERE a.tombstone = 1) IS NOT NULL
  OR (SELECT MIN(e.ended_ms) FROM campaigns e WHERE e.ended_ms > 0 AND e.tombstone = 0) < @before
  OR (SELECT MIN(o.updated_ms) FROM suppressions o WHERE o.version > o.published_version) IS NOT NULL
  OR (SELECT MIN(s.tenant) FROM senders s WHERE s.version > s.published_version) IS NOT NULL
  OR (SELECT MIN(d.host) FROM domains d WHERE d.version > d.published_version) IS NOT NULL
  OR (SELECT MIN(t.id) FROM tenants t WHERE t.version > t.published_version) IS NOT NULL
  OR (SELECT MIN(r.name) FROM routes r WHERE r.version > r.published_version) IS NOT NULL
THEN 1 ELSE 0 END AS INTEGER);

-- name: PublishedRoutes :many
-- What the relay compares with the topics: rows whose newest version has been published, in the order of their keys.
SELECT name, version FROM routes WHERE name > @above AND version = published_version ORDER BY name LIMIT @max;

-- name: PublishedTenants :many
SELECT id, version FROM tenants WHERE id > @above AND version = published_version ORDER BY id LIMIT @max;

-- name: PublishedSenders :many
SELECT tenant, id, deleted, version FROM senders
WHERE (tenant, id) > (@tenant, @above) AND version = published_version ORDER BY tenant, id LIMIT @max;

-- name: PublishedDomains :many
SELECT host, deleted, version FROM domains WHERE host > @above AND version = published_version ORDER BY host LIMIT @max;

-- name: PublishedCampaigns :many
SELECT tenant, number, version, tombstone FROM campaigns
WHERE number > @above AND version = published_version AND tombstone <> 1 ORDER BY number LIMIT @max;

-- name: PublishedSuppressions :many
SELECT tenant, number_key, hash, lifted, version FROM suppressions
WHERE (tenant, number_key) > (@tenant, @above) AND version = published_version ORDER BY tenant, number_key LIMIT @max;
