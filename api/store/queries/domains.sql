-- name: PutDomain :execrows
-- A host that comes back as another domain begins to count from 0. 0 rows: the host is another domain's.
INSERT INTO domains (host, tenant, number, kind, status, weight, daily_limit, total_limit, used, used_day, day, health, health_reason,
  certificate_ms, checked_ms, deleted, version, published_version, created_ms, updated_ms)
VALUES (@host, @tenant, @number, @kind, @status, @weight, @daily_limit, @total_limit, 0, 0, 0, 'unchecked', '', 0, 0, FALSE, 1, 0, @now, @now)
ON CONFLICT (host) DO UPDATE SET tenant = excluded.tenant, kind = excluded.kind, status = excluded.status, weight = excluded.weight,
  daily_limit = excluded.daily_limit, total_limit = excluded.total_limit,
  used = CASE WHEN domains.number = excluded.number THEN domains.used ELSE 0 END,
  used_day = CASE WHEN domains.number = excluded.number THEN domains.used_day ELSE 0 END,
  health = CASE WHEN domains.number = excluded.number THEN domains.health ELSE 'unchecked' END,
  health_reason = CASE WHEN domains.number = excluded.number THEN domains.health_reason ELSE '' END,
  checked_ms = CASE WHEN domains.number = excluded.number THEN domains.checked_ms ELSE 0 END,
  number = excluded.number, deleted = FALSE, version = domains.version + 1, updated_ms = excluded.updated_ms
WHERE domains.deleted OR domains.number = excluded.number;

-- name: DeleteDomain :execrows
UPDATE domains SET deleted = TRUE, version = version + 1, updated_ms = ? WHERE host = ? AND number = ? AND NOT deleted;

-- name: ListDomains :many
-- Those that a tenant may use: its own and the shared ones.
SELECT * FROM domains WHERE tenant IN (@tenant, '') AND NOT deleted ORDER BY host;

-- name: AllDomains :many
SELECT * FROM domains WHERE NOT deleted ORDER BY host;

-- name: DomainChecked :execrows
UPDATE domains SET health = @health, health_reason = @reason, certificate_ms = @certificate_ms, checked_ms = @now
WHERE host = @host AND number = @number AND NOT deleted;

-- name: UseDomain :execrows
-- Reserves n messages. 0 rows: the limits have no room for all of them.
UPDATE domains SET used = used + CAST(@n AS INTEGER),
  used_day = CASE WHEN day = @day THEN used_day ELSE 0 END + CAST(@n AS INTEGER), day = @day
WHERE host = @host AND NOT deleted AND status = 'active'
  AND (total_limit = 0 OR used + CAST(@n AS INTEGER) <= total_limit)
  AND (daily_limit = 0 OR CASE WHEN day = @day THEN used_day ELSE 0 END + CAST(@n AS INTEGER) <= daily_limit);

-- name: FreeDomain :exec
-- Gives back n messages that were reserved on a day.
UPDATE domains SET used = CASE WHEN used > CAST(@n AS INTEGER) THEN used - CAST(@n AS INTEGER) ELSE 0 END,
  used_day = CASE WHEN day <> @day THEN used_day WHEN used_day > CAST(@n AS INTEGER) THEN used_day - CAST(@n AS INTEGER) ELSE 0 END
WHERE host = @host AND number = @number;

-- name: DomainShares :many
SELECT * FROM domain_shares WHERE campaign = ? AND blob = ? ORDER BY first_seq;

-- name: CampaignShares :many
SELECT * FROM domain_shares WHERE tenant = ? AND campaign = ? ORDER BY blob, first_seq;

-- name: InsertDomainShare :exec
INSERT INTO domain_shares (tenant, campaign, blob, first_seq, end_seq, day, shares) VALUES (@tenant, @campaign, @blob, @first_seq, @end_seq, @day, @shares);

-- name: UnpublishedDomains :many
SELECT * FROM domains WHERE version > published_version ORDER BY host LIMIT ?;

-- name: PublishedDomain :exec
UPDATE domains SET published_version = version WHERE host = ? AND version = ?;

-- name: RepublishDomain :execrows
UPDATE domains SET published_version = 0 WHERE host = ?;

-- name: DomainUses :many
-- The campaigns whose messages have links on a domain that may still be opened. quoted is the domain's number as it stands in a document.
SELECT number FROM campaigns WHERE (ended_ms = 0 OR ended_ms > @since)
  AND number IN (SELECT campaign FROM domain_shares WHERE INSTR(shares, @quoted) > 0);

-- name: NamingDomains :many
-- The campaigns that have not ended and name domains.
SELECT * FROM campaigns WHERE ended_ms = 0 AND NOT hidden AND NOT removed AND INSTR(spec, '"Domains":[') > 0;

-- name: WithoutDomains :many
-- The campaigns that wait for a domain, oldest first.
SELECT * FROM campaigns WHERE state = CAST(@suspended AS INTEGER) AND reason = 'no_domains' AND NOT hidden ORDER BY number;
