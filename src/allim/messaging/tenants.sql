-- name: tenant_columns
-- A fragment: a tenant `t` as TenantView has it.
json_build_object('id', t.id, 'name', t.name, 'balance', t.balance, 'kakao_pf_id', t.kakao_pf_id,
                  'sender', t.sender, 'low_balance_krw', t.low_balance_krw,
                  'created_at', t.created_at, 'updated_at', t.updated_at)

-- name: create
-- The balance comes with the opening row of the ledger, in the same transaction.
INSERT INTO tenant AS t (id, name, kakao_pf_id, sender, low_balance_krw)
VALUES (%(id)s, %(name)s, %(kakao_pf_id)s, %(sender)s, %(low_balance_krw)s)
    ON CONFLICT DO NOTHING
RETURNING {tenant}

-- name: change
UPDATE tenant AS t
   SET name = coalesce(%(name)s, t.name),
       kakao_pf_id = CASE WHEN %(sets_kakao_pf_id)s THEN %(kakao_pf_id)s ELSE t.kakao_pf_id END,
       sender = CASE WHEN %(sets_sender)s THEN %(sender)s ELSE t.sender END,
       low_balance_krw = CASE WHEN %(sets_low_balance_krw)s THEN %(low_balance_krw)s
                              ELSE t.low_balance_krw END,
       updated_at = now()
 WHERE t.id = %(id)s
RETURNING {tenant}

-- name: one
SELECT {tenant} FROM tenant AS t WHERE t.id = %(id)s

-- name: list
SELECT {tenant} FROM tenant AS t
 WHERE t.id > %(after)s AND (CAST(%(own)s AS bigint) IS NULL OR t.id = %(own)s)
 ORDER BY t.id LIMIT %(limit)s

-- name: senders
-- Of some tenants, what their messages are sent by.
SELECT id, kakao_pf_id, sender FROM tenant WHERE id = ANY (%(ids)s::bigint[])

-- name: ledger
-- Newest first. Needs tenant_ledger_statement. A month is one of the calendar in Seoul.
SELECT json_build_object('id', l.id, 'kind', l.kind, 'amount', l.amount,
                         'balance_after', l.balance_after, 'delivery_id', l.delivery_id,
                         'attempt_no', l.attempt_no, 'message_kind', l.message_kind,
                         'note', l.note, 'created_at', l.created_at)
  FROM tenant_ledger AS l
 WHERE l.tenant_id = %(tenant)s
   AND (CAST(%(before)s AS bigint) IS NULL OR l.id < %(before)s)
   AND (CAST(%(begins)s AS timestamptz) IS NULL
        OR (l.created_at >= %(begins)s AND l.created_at < %(ends)s))
 ORDER BY l.id DESC LIMIT %(limit)s

-- name: statement
-- A month in the order in which it happened, some rows at a time, with whom each message went to.
SELECT l.id, to_char(l.created_at AT TIME ZONE 'Asia/Seoul', 'YYYY-MM-DD HH24:MI:SS'), l.kind,
       l.message_kind, l.amount, l.balance_after, l.delivery_id, l.attempt_no, d.recipient, l.note
  FROM tenant_ledger AS l
  LEFT JOIN delivery AS d ON d.id = l.delivery_id
 WHERE l.tenant_id = %(tenant)s AND l.id > %(after)s
   AND (CAST(%(begins)s AS timestamptz) IS NULL
        OR (l.created_at >= %(begins)s AND l.created_at < %(ends)s))
 ORDER BY l.id LIMIT %(limit)s
