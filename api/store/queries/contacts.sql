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
  AND (CAST(@search AS TEXT) = '' OR REPLACE(search, CAST(@search AS TEXT), '') <> search)
ORDER BY number DESC LIMIT @max OFFSET @skip;

-- name: CountLists :one
SELECT COUNT(*) FROM contact_lists
WHERE tenant = @tenant AND (CAST(@with_deleted AS BOOLEAN) OR deleted_ms = 0)
  AND (CAST(@search AS TEXT) = '' OR REPLACE(search, CAST(@search AS TEXT), '') <> search);

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

-- name: AddMember :execrows
INSERT INTO list_members (tenant, list, position, contact) VALUES (?, ?, ?, ?)
ON CONFLICT (tenant, list, contact) DO NOTHING;

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

-- name: InsertContact :execrows
INSERT INTO contacts (number, tenant, phone, first_name, last_name, email, attributes, country, zone, class, valid, version, created_ms, updated_ms, deleted_ms, search)
VALUES (@number, @tenant, @phone, @first_name, @last_name, @email, @attributes, @country, @zone, @class, @valid, 1, @now, @now,
  0, @search)
ON CONFLICT (tenant, phone) DO NOTHING;

-- name: GetContact :one
SELECT * FROM contacts WHERE tenant = ? AND number = ?;

-- name: GetContactByPhone :one
SELECT * FROM contacts WHERE tenant = ? AND phone = ?;

-- name: UpdateContact :execrows
UPDATE contacts SET phone = ?, first_name = ?, last_name = ?, email = ?, attributes = ?, country = ?, zone = ?, class = ?, valid = ?, search = ?,
  version = version + 1, updated_ms = ?, deleted_ms = ?
WHERE tenant = ? AND number = ? AND version = ?;

-- name: ListContacts :many
SELECT * FROM contacts
WHERE tenant = @tenant AND (CAST(@with_deleted AS BOOLEAN) OR deleted_ms = 0)
  AND (CAST(@search AS TEXT) = '' OR REPLACE(phone, CAST(@search AS TEXT), '') <> phone OR REPLACE(search, CAST(@search AS TEXT), '') <> search)
ORDER BY number LIMIT @max OFFSET @skip;

-- name: CountContacts :one
SELECT COUNT(*) FROM contacts
WHERE tenant = @tenant AND (CAST(@with_deleted AS BOOLEAN) OR deleted_ms = 0)
  AND (CAST(@search AS TEXT) = '' OR REPLACE(phone, CAST(@search AS TEXT), '') <> phone OR REPLACE(search, CAST(@search AS TEXT), '') <> search);

-- name: ListMembers :many
SELECT c.* FROM list_members m JOIN contacts c ON c.number = m.contact
WHERE m.tenant = @tenant AND m.list = @list
  AND (CAST(@search AS TEXT) = '' OR REPLACE(phone, CAST(@search AS TEXT), '') <> phone OR REPLACE(search, CAST(@search AS TEXT), '') <> search)
ORDER BY m.position LIMIT @max OFFSET @skip;

-- name: CountMembers :one
SELECT COUNT(*) FROM list_members m JOIN contacts c ON c.number = m.contact
WHERE m.tenant = @tenant AND m.list = @list
  AND (CAST(@search AS TEXT) = '' OR REPLACE(phone, CAST(@search AS TEXT), '') <> phone OR REPLACE(search, CAST(@search AS TEXT), '') <> search);

-- name: InsertImport :exec
INSERT INTO imports (id, tenant, list, source, state, error, rows_read, total, imported, updated, unchanged, duplicates, invalid,
  unreachable, rejected, started_ms, seen_ms, finished_ms)
VALUES (@id, @tenant, @list, @source, @state, '', 0, 0, 0, 0, 0, 0, 0, 0, '[]', @now, @now, 0);

-- name: UpdateImport :exec
UPDATE imports SET state = ?, error = ?, rows_read = ?, total = ?, imported = ?, updated = ?, unchanged = ?, duplicates = ?, invalid = ?,
  unreachable = ?, rejected = ?, seen_ms = ?, finished_ms = ?
WHERE tenant = ? AND id = ?;

-- name: EndImports :exec
UPDATE imports SET state = 'failed', error = @error, finished_ms = @now WHERE state = 'running' AND seen_ms < @silent;

-- name: GetImport :one
SELECT * FROM imports WHERE tenant = ? AND id = ?;

-- name: ListImports :many
SELECT * FROM imports WHERE tenant = ? ORDER BY started_ms DESC, id LIMIT ? OFFSET ?;

-- name: PutSuppression :one
-- Writes only what changes something: a second opt-out of the same number keeps its version and is published already.
INSERT INTO suppressions (tenant, phone, hash, source, lifted, version, published_version, updated_ms)
VALUES (@tenant, @phone, @hash, @source, @lifted, 1, 0, @now)
ON CONFLICT (tenant, phone) DO UPDATE SET hash = excluded.hash, source = excluded.source, lifted = excluded.lifted,
  version = suppressions.version + 1, updated_ms = excluded.updated_ms
WHERE suppressions.lifted <> excluded.lifted
RETURNING version;

-- name: InsertSuppressionLog :exec
INSERT INTO suppression_log (tenant, phone, source, lifted, version, time_ms) VALUES (?, ?, ?, ?, ?, ?);

-- name: GetSuppression :one
SELECT * FROM suppressions WHERE tenant = ? AND phone = ?;

-- name: ListSuppressions :many
SELECT * FROM suppressions WHERE tenant = ? AND NOT lifted ORDER BY phone LIMIT ? OFFSET ?;

-- name: CountSuppressions :one
SELECT COUNT(*) FROM suppressions WHERE tenant = ? AND NOT lifted;

-- name: ListSuppressionLog :many
SELECT * FROM suppression_log WHERE tenant = ? AND phone = ? ORDER BY id;

-- name: UnpublishedSuppressions :many
SELECT * FROM suppressions WHERE version > published_version ORDER BY updated_ms LIMIT ?;

-- name: PublishedSuppression :exec
UPDATE suppressions SET published_version = version WHERE tenant = ? AND hash = ? AND version = ?;

-- name: RepublishSuppression :execrows
UPDATE suppressions SET published_version = 0 WHERE tenant = ? AND hash = ?;
