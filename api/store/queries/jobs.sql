-- name: InsertJob :exec
INSERT INTO jobs (id, tenant, kind, state, error, test, by_whom, options, list, position, done, total, bytes, owner, claims, cancel, started_ms, seen_ms, finished_ms)
VALUES (@id, @tenant, @kind, 'queued', '', @test, @by_whom, @options, @list, '', 0, @total, 0, '', 0, FALSE, @now, @now, 0);

-- name: CountOpenJobs :one
SELECT COUNT(*) FROM jobs WHERE tenant = ? AND kind = ? AND finished_ms = 0;

-- name: ClaimJob :one
-- Gives a job to a process: one that no process runs, or whose process has been silent. The tenant with the fewest
-- running jobs comes first, so that many jobs of one tenant do not hold up another's.
UPDATE jobs SET state = 'running', owner = @owner, claims = claims + 1, seen_ms = @now
WHERE id = (SELECT j.id FROM jobs j WHERE j.finished_ms = 0 AND (j.owner = '' OR j.seen_ms < @silent)
  ORDER BY (SELECT COUNT(*) FROM jobs r WHERE r.finished_ms = 0 AND r.tenant = j.tenant AND r.owner <> ''), j.started_ms, j.id LIMIT 1)
  AND finished_ms = 0 AND (owner = '' OR seen_ms < @silent)
RETURNING *;

-- name: StepJob :one
-- Writes the figures, if the job is still its owner's, and tells whether somebody wants it to end.
UPDATE jobs SET position = @position, done = @done, total = @total, bytes = @bytes, error = '', seen_ms = @now
WHERE tenant = @tenant AND id = @id AND owner = @owner AND finished_ms = 0
RETURNING cancel;

-- name: FinishJob :execrows
UPDATE jobs SET state = @state, error = @error, owner = '', seen_ms = @now, finished_ms = @now
WHERE tenant = @tenant AND id = @id AND owner = @owner AND finished_ms = 0;

-- name: ReleaseJob :exec
-- Gives a job back that its process cannot run on at present; error says why.
UPDATE jobs SET owner = '', claims = claims - 1, error = @error WHERE tenant = @tenant AND id = @id AND owner = @owner AND finished_ms = 0;

-- name: CancelJob :execrows
-- Ends a job at once when no process runs it, else has its process end it.
UPDATE jobs SET cancel = TRUE, state = CASE WHEN owner = '' THEN 'cancelled' ELSE state END,
  finished_ms = CASE WHEN owner = '' THEN CAST(@now AS INTEGER) ELSE finished_ms END
WHERE tenant = @tenant AND id = @id AND finished_ms = 0;

-- name: GetJob :one
SELECT * FROM jobs WHERE tenant = ? AND kind = ? AND id = ?;

-- name: ListJobs :many
-- Newest first, after the job that began at before_ms and has the id above.
SELECT * FROM jobs WHERE tenant = @tenant AND kind = @kind
  AND (started_ms < CAST(@before_ms AS INTEGER) OR started_ms = CAST(@before_ms AS INTEGER) AND id > CAST(@above AS TEXT))
ORDER BY started_ms DESC, id LIMIT @max OFFSET @skip;

-- name: CountJobs :one
SELECT COUNT(*) FROM jobs WHERE tenant = ? AND kind = ?;

-- name: PutJobPart :exec
INSERT INTO job_parts (job, part, data) VALUES (@job, @part, @data) ON CONFLICT (job, part) DO UPDATE SET data = excluded.data;

-- name: AddJobPart :exec
INSERT INTO job_parts (job, part, data) VALUES (@job, (SELECT COALESCE(MAX(p.part), 0) + 1 FROM job_parts p WHERE p.job = @job), @data);

-- name: GetJobPart :one
SELECT data FROM job_parts WHERE job = ? AND part = ?;

-- name: NextJobPart :one
SELECT part, data FROM job_parts WHERE job = @job AND part > @after ORDER BY part LIMIT 1;

-- name: DropJobParts :execrows
DELETE FROM job_parts WHERE job_parts.job = @job AND job_parts.part IN (
  SELECT p.part FROM job_parts p WHERE p.job = @job ORDER BY p.part LIMIT @max);

-- name: OldJobs :many
SELECT id FROM jobs WHERE finished_ms > 0 AND finished_ms < @before ORDER BY finished_ms LIMIT 100;

-- name: DropJob :exec
DELETE FROM jobs WHERE id = ?;

-- name: TouchJob :exec
-- Says that the process of a job is alive.
UPDATE jobs SET seen_ms = @now WHERE tenant = @tenant AND id = @id AND owner = @owner AND finished_ms = 0;

-- name: CampaignsSending :many
SELECT number FROM campaigns WHERE tenant = @tenant AND created_ms < CAST(@to_ms AS INTEGER) AND (hidden OR confirmed_ms > 0) AND NOT removed
  AND (ended_ms = 0 OR ended_ms >= CAST(@from_ms AS INTEGER)) ORDER BY number LIMIT @max;
