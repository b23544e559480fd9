-- name: InsertList :exec
INSERT INTO contact_lists (number, tenant, name, search, test, members, next_position, version, created_ms, updated_ms, deleted_ms)
VALUES (@number, @tenant, @name, @search, @test, 0, 0, 1, @now, @now, 0);

-- name: GetList :one
SELECT * FROM contact_lists WHERE tenant = ? AND number = ?;

-- name: GetListByName :one
SELECT * FROM contact_lists WHERE tenant = ? AND name = ? AND deleted_ms = 0;

-- name: ListLists :many
SELECT * FROM contact_lists
WHERE tenant = @tenant AND (CAST(@with_deleted AS BOOLEAN) OR deleted_ms = 0)
  AND (CAST(@search AS TEXT) = '' OR INSTR(search, CAST(@search AS TEXT)) > 0)
  AND number < CAST(@below AS INTEGER)
ORDER BY number DESC LIMIT @max OFFSET @skip;

-- name: CountLists :one
SELECT COUNT(*) FROM contact_lists
WHERE tenant = @tenant AND (CAST(@with_deleted AS BOOLEAN) OR deleted_ms = 0)
  AND (CAST(@search AS TEXT) = '' OR INSTR(search, CAST(@search AS TEXT)) > 0);

-- name: UpdateList :execrows
UPDATE contact_lists SET name = ?, search = ?, test = ?, version = version + 1, updated_ms = ?
WHERE tenant = ? AND number = ? AND version = ? AND deleted_ms = 0;

-- name: DeleteList :execrows
UPDATE contact_lists SET deleted_ms = @now, updated_ms = @now, version = version + 1
WHERE tenant = @tenant AND number = @number AND deleted_ms = 0;

-- name: GrowList :one
-- Takes n positions of a list and locks its row.
UPDATE contact_lists SET next_position = next_position + CAST(@n AS INTEGER)
WHERE tenant = @tenant AND number = @number AND deleted_ms = 0
RETURNING next_position;

-- name: ListChanged :exec
UPDATE contact_lists SET members = members + CAST(@added AS INTEGER), version = version + 1, updated_ms = @now
WHERE tenant = @tenant AND number = @number;

-- name: ListsOfContact :many
SELECT l.number FROM contact_lists l JOIN list_members m ON m.tenant = l.tenant AND m.list = l.number
WHERE m.tenant = ? AND m.contact = ? AND l.deleted_ms = 0;

-- name: RemoveMember :execrows
DELETE FROM list_members WHERE tenant = ? AND list = ? AND contact = ?;

-- name: GoneLists :many
-- Deleted lists that no campaign may still want to freeze.
SELECT tenant, number FROM contact_lists WHERE deleted_ms > 0 AND deleted_ms < @before AND members > 0 LIMIT 100;

-- name: DropMembers :execrows
DELETE FROM list_members WHERE list_members.tenant = @tenant AND list_members.list = @list AND list_members.position IN (
  SELECT m.position FROM list_members m WHERE m.tenant = @tenant AND m.list = @list ORDER BY m.position LIMIT @max);

-- name: EmptyList :exec
UPDATE contact_lists SET members = 0 WHERE tenant = ? AND number = ?;

-- name: ListFields :many
SELECT name, members FROM list_fields WHERE tenant = ? AND list = ?;

-- name: AddListField :exec
INSERT INTO list_fields (tenant, list, name, members) VALUES (@tenant, @list, @name, @added)
ON CONFLICT (tenant, list, name) DO UPDATE SET members = list_fields.members + excluded.members;

-- name: MarkListFields :exec
-- Says that the counts of a list are not complete, and why.
INSERT INTO list_fields (tenant, list, name, members) VALUES (@tenant, @list, '', @why)
ON CONFLICT (tenant, list, name) DO UPDATE SET members = excluded.members;

-- name: DropListFields :exec
DELETE FROM list_fields WHERE tenant = ? AND list = ?;

-- name: UncountedLists :many
SELECT tenant, list FROM list_fields WHERE name = '' AND members = 1 LIMIT 10;

-- name: InsertContact :execrows
INSERT INTO contacts (number, tenant, phone, number_key, first_name, last_name, email, attributes, country, zone, class, valid, version,
  created_ms, updated_ms, deleted_ms, search, opt_in_ms, opt_in_source)
VALUES (@number, @tenant, @phone, @number_key, @first_name, @last_name, @email, @attributes, @country, @zone, @class, @valid, 1,
  @now, @now, 0, @search, @opt_in_ms, @opt_in_source)
ON CONFLICT (tenant, number_key) DO NOTHING;

-- name: GetContact :one
SELECT * FROM contacts WHERE tenant = ? AND number = ?;

-- name: GetContactByKey :one
SELECT * FROM contacts WHERE tenant = ? AND number_key = ?;

-- name: UpdateContact :execrows
UPDATE contacts SET phone = ?, number_key = ?, first_name = ?, last_name = ?, email = ?, attributes = ?, country = ?, zone = ?, class = ?, valid = ?, search = ?, opt_in_ms = ?, opt_in_source = ?,
  version = version + 1, updated_ms = ?, deleted_ms = ?
WHERE tenant = ? AND number = ? AND version = ?;

-- name: PutSuppression :one
INSERT INTO suppressions (tenant, number_key, phone, hash, source, lifted, version, published_version, updated_ms, reason, channels)
VALUES (@tenant, @number_key, @phone, @hash, @source, @lifted, 1, 0, @now, @reason, @channels)
ON CONFLICT (tenant, number_key) DO UPDATE SET phone = excluded.phone, hash = excluded.hash, source = excluded.source, lifted = excluded.lifted, reason = excluded.reason,
  version = suppressions.version + 1, updated_ms = excluded.updated_ms, channels_before = suppressions.channels, channels = excluded.channels
RETURNING version;

-- name: InsertSuppressionLog :exec
INSERT INTO suppression_log (tenant, number_key, phone, source, lifted, version, time_ms, reason, by_whom, channels, scope, fact) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: CountSuppressionFact :one
-- Whether a fact was recorded before. The second condition lets the index answer.
SELECT COUNT(*) FROM suppression_log WHERE tenant = ? AND fact = ? AND fact <> '';

-- name: GetSuppression :one
SELECT * FROM suppressions WHERE tenant = ? AND number_key = ?;

-- name: ListSuppressions :many
SELECT * FROM suppressions WHERE tenant = @tenant AND NOT lifted AND phone <> '' AND number_key > @above ORDER BY number_key LIMIT @max OFFSET @skip;

-- name: CountSuppressions :one
SELECT COUNT(*) FROM suppressions WHERE tenant = ? AND NOT lifted AND phone <> '';

-- name: ListSuppressionLog :many
SELECT * FROM suppression_log WHERE tenant = ? AND number_key = ? ORDER BY id;

-- name: UnpublishedSuppressions :many
SELECT * FROM suppressions WHERE version > published_version ORDER BY updated_ms LIMIT ?;

-- name: HashSuppression :exec
-- Gives its hash to an opt-out that a migration left without one.
UPDATE suppressions SET hash = @hash WHERE tenant = @tenant AND number_key = @number_key AND hash = '';

-- name: PublishedSuppression :exec
UPDATE suppressions SET published_version = version WHERE tenant = ? AND hash = ? AND version = ?;

-- name: RepublishSuppression :execrows
UPDATE suppressions SET published_version = 0 WHERE tenant = ? AND hash = ?;

-- name: CampaignsNaming :many
-- Campaigns in these states, a set of bits, whose document has that text: a list's number, which the caller looks for
-- in the right place.
SELECT number, name, state, spec FROM campaigns
WHERE tenant = @tenant AND NOT hidden AND NOT removed AND (CAST(@states AS INTEGER) >> CAST(state AS INT)) & 1 = 1 AND INSTR(spec, CAST(@needle AS TEXT)) > 0
ORDER BY number DESC;
