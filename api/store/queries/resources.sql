-- name: InsertResource :exec
INSERT INTO resources (number, tenant, kind, name, search, status, doc, created_by, version, published_version, created_ms, updated_ms, deleted_ms)
VALUES (@number, @tenant, @kind, @name, @search, @status, @doc, @created_by, 1, 0, @now, @now, 0);

-- name: GetResource :one
SELECT * FROM resources WHERE tenant = ? AND kind = ? AND number = ?;

-- name: ResourceByName :one
SELECT * FROM resources WHERE tenant = ? AND kind = ? AND name = ? AND deleted_ms = 0;

-- name: ListResources :many
-- status '' is any; below is the number of the last one seen, 0 for the newest.
SELECT * FROM resources
WHERE tenant = @tenant AND kind = @kind
  AND (CAST(@with_deleted AS BOOLEAN) OR deleted_ms = 0)
  AND (CAST(@status AS TEXT) = '' OR status = CAST(@status AS TEXT))
  AND (CAST(@search AS TEXT) = '' OR REPLACE(search, CAST(@search AS TEXT), '') <> search)
  AND (CAST(@below AS INTEGER) = 0 OR number < CAST(@below AS INTEGER))
ORDER BY number DESC LIMIT @max OFFSET @skip;

-- name: CountResources :one
SELECT COUNT(*) FROM resources
WHERE tenant = @tenant AND kind = @kind
  AND (CAST(@with_deleted AS BOOLEAN) OR deleted_ms = 0)
  AND (CAST(@status AS TEXT) = '' OR status = CAST(@status AS TEXT))
  AND (CAST(@search AS TEXT) = '' OR REPLACE(search, CAST(@search AS TEXT), '') <> search);

-- name: UpdateResource :execrows
UPDATE resources SET name = ?, search = ?, status = ?, doc = ?, deleted_ms = ?, version = version + 1, updated_ms = ?
WHERE tenant = ? AND kind = ? AND number = ? AND version = ?;
