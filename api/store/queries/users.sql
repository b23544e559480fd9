-- name: InsertUser :exec
INSERT INTO users (id, email, name, password, subject, operator, disabled, epoch, version, created_ms, updated_ms, seen_ms)
VALUES (@id, @email, @name, @password, @subject, @operator, FALSE, 1, 1, @now, @now, 0);

-- name: GetUser :one
SELECT * FROM users WHERE id = ?;

-- name: UserByEmail :one
SELECT * FROM users WHERE email = ?;

-- name: UserBySubject :one
SELECT * FROM users WHERE subject = ?;

-- name: ListUsers :many
SELECT * FROM users ORDER BY email;

-- name: ListTenantUsers :many
SELECT users.* FROM users JOIN memberships ON memberships.user_id = users.id WHERE memberships.tenant = ? ORDER BY users.email;

-- name: UpdateUser :execrows
UPDATE users SET email = ?, name = ?, password = ?, subject = ?, operator = ?, disabled = ?, epoch = ?, version = version + 1, updated_ms = ?
WHERE id = ? AND version = ?;

-- name: UserSeen :exec
UPDATE users SET seen_ms = ? WHERE id = ?;

-- name: SetMembership :exec
INSERT INTO memberships (user_id, tenant, role, created_ms) VALUES (@user_id, @tenant, @role, @now)
ON CONFLICT (user_id, tenant) DO UPDATE SET role = excluded.role;

-- name: DeleteMembership :execrows
DELETE FROM memberships WHERE user_id = ? AND tenant = ?;

-- name: ListMemberships :many
SELECT * FROM memberships WHERE user_id = ? ORDER BY tenant;

-- name: PutSession :exec
INSERT INTO sessions (token, data, expires_ms) VALUES (?, ?, ?)
ON CONFLICT (token) DO UPDATE SET data = excluded.data, expires_ms = excluded.expires_ms;

-- name: GetSession :one
SELECT data FROM sessions WHERE token = @token AND expires_ms > @now;

-- name: DeleteSession :exec
DELETE FROM sessions WHERE token = ?;

-- name: DropSessions :execrows
DELETE FROM sessions WHERE expires_ms <= ?;

-- name: InsertLink :exec
INSERT INTO login_links (hash, user_id, expires_ms) VALUES (?, ?, ?);

-- name: GetLink :one
SELECT user_id FROM login_links WHERE hash = @hash AND expires_ms > @now;

-- name: DeleteLink :execrows
DELETE FROM login_links WHERE hash = ?;

-- name: DropLinks :execrows
DELETE FROM login_links WHERE expires_ms <= ?;
