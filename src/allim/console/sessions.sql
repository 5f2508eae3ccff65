-- name: open
INSERT INTO console_session (token_hash, key_hash, expires_at)
VALUES (%(token_hash)s, %(key_hash)s, now() + %(hours)s * interval '1 hour')
RETURNING expires_at

-- name: find
-- Asked of the table of keys itself: a key that is revoked ends its sessions at once.
SELECT s.key_hash
  FROM console_session s
 WHERE s.token_hash = %(token_hash)s AND s.expires_at > now()
   AND NOT EXISTS (SELECT FROM api_key k
                    WHERE k.key_hash = s.key_hash AND k.revoked_at IS NOT NULL)

-- name: close
DELETE FROM console_session WHERE token_hash = %(token_hash)s RETURNING token_hash

-- name: prune
-- A few rows, once a login: the table is as small as the number of people.
DELETE FROM console_session WHERE expires_at <= now() RETURNING token_hash
