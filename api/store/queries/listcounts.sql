-- name: ListCounts :many
SELECT country, class, valid, opted_out, opted_in, n FROM list_counts WHERE tenant = ? AND list = ? AND n > 0;

-- name: MoveListCount :execrows
UPDATE list_counts SET n = n + CAST(@n AS INTEGER)
WHERE tenant = @tenant AND list = @list AND country = @country AND class = @class AND valid = @valid AND opted_out = @opted_out AND opted_in = @opted_in;

-- name: AddListCount :exec
INSERT INTO list_counts (tenant, list, country, class, valid, opted_out, opted_in, n) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: DropListCounts :exec
DELETE FROM list_counts WHERE tenant = ? AND list = ?;

-- name: CountPositions :many
-- What new members of a list add to its counts.
SELECT m.list, c.country, c.class, c.valid, CAST(COALESCE(s.channels, 0) AS INTEGER) AS opted_out, c.opt_in_ms > 0 AS opted_in, COUNT(*) AS n
FROM list_members m
JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant
LEFT JOIN suppressions s ON s.tenant = m.tenant AND s.number_key = c.number_key
WHERE m.tenant = @tenant AND m.list = @list AND m.position >= @from_position AND m.position < @to_position
GROUP BY m.list, c.country, c.class, c.valid, CAST(COALESCE(s.channels, 0) AS INTEGER), c.opt_in_ms > 0;

-- name: CountJoined :many
-- As CountPositions, and how many of the new members have a value in each field.
SELECT m.list, c.country, c.class, c.valid, CAST(COALESCE(s.channels, 0) AS INTEGER) AS opted_out, c.opt_in_ms > 0 AS opted_in, COUNT(*) AS n,
  CAST(SUM(CASE WHEN c.first_name <> '' THEN 1 ELSE 0 END) AS INTEGER) AS first_names,
  CAST(SUM(CASE WHEN c.last_name <> '' THEN 1 ELSE 0 END) AS INTEGER) AS last_names,
  CAST(SUM(CASE WHEN c.email <> '' THEN 1 ELSE 0 END) AS INTEGER) AS emails,
  CAST(SUM(CASE WHEN c.attributes <> '' THEN 1 ELSE 0 END) AS INTEGER) AS attributes
FROM list_members m
JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant
LEFT JOIN suppressions s ON s.tenant = m.tenant AND s.number_key = c.number_key
WHERE m.tenant = @tenant AND m.list = @list AND m.position >= @from_position AND m.position < @to_position
GROUP BY m.list, c.country, c.class, c.valid, CAST(COALESCE(s.channels, 0) AS INTEGER), c.opt_in_ms > 0;

-- name: AttributesJoined :many
SELECT c.attributes FROM list_members m JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant
WHERE m.tenant = @tenant AND m.list = @list AND m.position >= @from_position AND m.position < @to_position AND c.attributes <> '';

-- name: CountContact :many
-- What a contact adds to the counts of its lists.
SELECT m.list, c.country, c.class, c.valid, CAST(COALESCE(s.channels, 0) AS INTEGER) AS opted_out, c.opt_in_ms > 0 AS opted_in, COUNT(*) AS n
FROM list_members m
JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant
LEFT JOIN suppressions s ON s.tenant = m.tenant AND s.number_key = c.number_key
WHERE m.tenant = @tenant AND m.contact = @contact
GROUP BY m.list, c.country, c.class, c.valid, CAST(COALESCE(s.channels, 0) AS INTEGER), c.opt_in_ms > 0;

-- name: CountSome :many
-- What some members of a list add to its counts.
SELECT m.list, c.country, c.class, c.valid, CAST(COALESCE(s.channels, 0) AS INTEGER) AS opted_out, c.opt_in_ms > 0 AS opted_in, COUNT(*) AS n
FROM list_members m
JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant
LEFT JOIN suppressions s ON s.tenant = m.tenant AND s.number_key = c.number_key
WHERE m.tenant = ? AND m.list = ? AND m.contact IN (sqlc.slice('contacts'))
GROUP BY m.list, c.country, c.class, c.valid, CAST(COALESCE(s.channels, 0) AS INTEGER), c.opt_in_ms > 0;

-- name: ContactsByNumber :many
SELECT * FROM contacts WHERE tenant = ? AND number IN (sqlc.slice('numbers')) AND deleted_ms = 0;

-- name: AnyContactsByNumber :many
-- Deleted ones too.
SELECT * FROM contacts WHERE tenant = ? AND number IN (sqlc.slice('numbers'));

-- name: MembersAmong :many
SELECT contact FROM list_members WHERE tenant = ? AND list = ? AND contact IN (sqlc.slice('contacts'));

-- name: RemoveMembers :execrows
DELETE FROM list_members WHERE tenant = ? AND list = ? AND contact IN (sqlc.slice('contacts'));

-- name: AddContactCount :exec
-- Of a tenant that has none yet there is nothing to take away.
INSERT INTO contact_counts (tenant, n, deleted) VALUES (@tenant, 0, 0) ON CONFLICT (tenant) DO NOTHING;

-- name: MoveContactCount :execrows
UPDATE contact_counts SET n = n + CAST(@n AS INTEGER), deleted = deleted + CAST(@deleted AS INTEGER) WHERE tenant = @tenant;

-- name: GetContactCount :one
SELECT n, deleted FROM contact_counts WHERE tenant = ?;
