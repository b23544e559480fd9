-- name: PutInstallation :exec
INSERT INTO installation (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING;

-- name: GetInstallation :one
SELECT value FROM installation WHERE name = ?;
