-- name: suppression_columns
-- A fragment: a suppression `s` as SuppressionView has it.
json_build_object('id', s.id, 'tenant_id', s.tenant_id, 'recipient_kind', s.recipient_kind,
                  'recipient', s.recipient, 'reason', s.reason, 'created_at', s.created_at)

-- name: suppressed
-- Which of these must not be written to. Needs the unique index, by its first two columns.
SELECT w.id
  FROM unnest(%(ids)s::bigint[], %(tenants)s::bigint[], %(recipients)s::text[])
    AS w (id, tenant_id, recipient)
 WHERE EXISTS (SELECT FROM suppression AS s
                WHERE s.recipient = w.recipient AND s.recipient_kind = %(kind)s
                  AND (s.tenant_id IS NULL OR s.tenant_id = w.tenant_id))

-- name: suppress
-- What a provider said of numbers; in their order, so that two settles cannot lock each other out.
INSERT INTO suppression (tenant_id, recipient_kind, recipient, reason)
SELECT DISTINCT ON (recipient) NULL::bigint, %(kind)s, recipient, reason
  FROM unnest(%(recipients)s::text[], %(reasons)s::text[]) AS w (recipient, reason)
 ORDER BY recipient
    ON CONFLICT DO NOTHING

-- name: ended_by
-- What ended some deliveries. Primary key only.
SELECT recipient, error_code, last_error FROM delivery
 WHERE id = ANY (%(ids)s::bigint[]) AND recipient IS NOT NULL AND status = 'DEAD'

-- name: add
WITH added AS (
    INSERT INTO suppression AS s (tenant_id, recipient_kind, recipient, reason)
    VALUES (%(tenant)s, %(kind)s, %(recipient)s, %(reason)s)
        ON CONFLICT (recipient, recipient_kind, tenant_id)
        DO UPDATE SET reason = coalesce(excluded.reason, s.reason), updated_at = now()
    RETURNING s.*
)
SELECT {suppression} FROM added AS s

-- name: remove
DELETE FROM suppression AS s
 WHERE s.id = %(id)s AND (CAST(%(tenant)s AS bigint) IS NULL OR s.tenant_id = %(tenant)s)
RETURNING s.id

-- name: list
SELECT {suppression} FROM suppression AS s
 WHERE (CAST(%(before)s AS bigint) IS NULL OR s.id < %(before)s)
   AND (CAST(%(tenant)s AS bigint) IS NULL OR s.tenant_id IS NULL OR s.tenant_id = %(tenant)s)
   AND (CAST(%(recipient)s AS text) IS NULL OR s.recipient = %(recipient)s)
 ORDER BY s.id DESC LIMIT %(limit)s
