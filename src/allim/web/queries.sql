-- name: live_keys
-- All of them: there are few, and a key that is presented is then looked up in memory, so
-- that guessing costs the database nothing.
SELECT name, key_hash, scopes, tenant_id FROM api_key WHERE revoked_at IS NULL

-- name: create_key
INSERT INTO api_key (name, key_hash, scopes, tenant_id)
VALUES (%(name)s, %(key_hash)s, %(scopes)s, %(tenant_id)s)
RETURNING id

-- name: list_keys
SELECT id, name, scopes, tenant_id, created_at, revoked_at FROM api_key ORDER BY id

-- name: revoke_key
UPDATE api_key SET revoked_at = now(), updated_at = now()
 WHERE id = %(id)s AND revoked_at IS NULL
RETURNING id

-- name: schema_is_there
SELECT to_regclass('schema_migration') IS NOT NULL

-- name: schema_number
SELECT coalesce(max(number), 0) FROM schema_migration
