-- name: suppression_columns
-- A fragment: a suppression `s` as SuppressionView has it. What holds for all may have been learnt
-- from another tenant's delivery, so a tenant is not told from which, nor in what words.
json_build_object('id', s.id, 'tenant_id', s.tenant_id, 'recipient_kind', s.recipient_kind,
                  'recipient', s.recipient, 'list', s.list, 'reason', s.reason,
                  'detail', CASE WHEN CAST(%(tenant)s AS bigint) IS NULL
                                   OR s.tenant_id IS NOT NULL THEN s.detail END,
                  'delivery_id', CASE WHEN CAST(%(tenant)s AS bigint) IS NULL
                                        OR s.tenant_id IS NOT NULL THEN s.delivery_id END,
                  'created_at', s.created_at)

-- name: suppressed
-- Which of these must not be written to, and why: what holds for everything before what holds
-- for one list. Needs the unique index, by its first two columns.
SELECT w.id, found.list, found.reason
  FROM unnest(%(ids)s::bigint[], %(tenants)s::bigint[], %(recipients)s::text[], %(lists)s::text[])
    AS w (id, tenant_id, recipient, list)
 CROSS JOIN LATERAL (
       SELECT s.list, s.reason FROM suppression AS s
        WHERE s.recipient = w.recipient AND s.recipient_kind = %(kind)s
          AND (s.tenant_id IS NULL OR s.tenant_id = w.tenant_id)
          AND (s.list IS NULL OR s.list = w.list)
        ORDER BY s.list NULLS FIRST, s.id
        LIMIT 1) AS found

-- name: suppress
-- What was learnt of addresses; in their order, so that two settles cannot lock each other out.
-- What stands there already was said first, or by a person, and stays.
INSERT INTO suppression (tenant_id, recipient_kind, recipient, list, reason, detail, delivery_id)
SELECT DISTINCT ON (recipient, tenant_id, list)
       tenant_id, %(kind)s, recipient, list, reason, detail, delivery_id
  FROM unnest(%(recipients)s::text[], %(tenants)s::bigint[], %(lists)s::text[],
              %(reasons)s::text[], %(details)s::text[], %(deliveries)s::bigint[])
    AS w (recipient, tenant_id, list, reason, detail, delivery_id)
 ORDER BY recipient, tenant_id, list
    ON CONFLICT DO NOTHING
RETURNING id

-- name: ended_by
-- What ended some deliveries. Primary key only.
SELECT id, recipient, error_code, last_error FROM delivery
 WHERE id = ANY (%(ids)s::bigint[]) AND recipient IS NOT NULL AND status = 'DEAD'

-- name: add
WITH added AS (
    INSERT INTO suppression AS s (tenant_id, recipient_kind, recipient, list, reason)
    VALUES (%(tenant)s, %(kind)s, %(recipient)s, %(list)s, %(reason)s)
        ON CONFLICT (recipient, recipient_kind, tenant_id, list)
        DO UPDATE SET reason = coalesce(excluded.reason, s.reason), updated_at = now()
    RETURNING s.*
)
SELECT {suppression} FROM added AS s

-- name: remove
DELETE FROM suppression AS s
 WHERE s.id = %(id)s AND (CAST(%(tenant)s AS bigint) IS NULL OR s.tenant_id = %(tenant)s)
RETURNING s.id

-- name: list
-- Newest first, along the primary key or by what an index knows.
SELECT {suppression} FROM suppression AS s
 WHERE (CAST(%(before)s AS bigint) IS NULL OR s.id < %(before)s) {filters}
 ORDER BY s.id DESC LIMIT %(limit)s

-- name: of_tenant
-- A fragment: a tenant sees its own entries. Needs suppression_tenant.
AND s.tenant_id = %(tenant)s

-- name: of_recipient
-- A fragment. Needs the unique index, by its first column.
AND s.recipient = %(recipient)s

-- name: of_recipient_for_tenant
-- A fragment: of an address that it names a tenant also sees what holds for all; of others not,
-- since those are addresses that other tenants write to. Needs the unique index.
AND s.recipient = %(recipient)s AND (s.tenant_id = %(tenant)s OR s.tenant_id IS NULL)
