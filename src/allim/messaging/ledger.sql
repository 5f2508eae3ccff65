-- Movements of money. Each statement runs in a transaction that has locked the tenants it touches,
-- in the order of their ids, so a statement's snapshot is never older than the balances in it.

-- name: lock_tenants
-- Primary key only.
SELECT id, balance, coalesce(low_balance_krw, %(low)s), name,
       coalesce(warned_at < now() - interval '1 hour', true)
  FROM tenant
 WHERE id = ANY (%(tenants)s::bigint[])
 ORDER BY id
   FOR NO KEY UPDATE

-- name: resume
-- Deliveries whose last debit was kept for their next attempt. Primary key only.
DELETE FROM tenant_hold WHERE delivery_id = ANY (%(ids)s::bigint[]) RETURNING delivery_id

-- name: debit
-- One row per attempt, and the sum of each tenant off its balance; guarded, though the locks were
-- taken and the balances looked at: the CHECK on the table is the last word. Answers the balances.
WITH charge AS MATERIALIZED (
    SELECT * FROM unnest(%(tenants)s::bigint[], %(ids)s::bigint[], %(attempts)s::int[],
                         %(amounts)s::bigint[], %(kinds)s::text[])
        AS c (tenant_id, delivery_id, attempt_no, amount, message_kind)
), written AS (
    INSERT INTO tenant_ledger (tenant_id, kind, amount, balance_after, delivery_id, attempt_no,
                               message_kind)
    SELECT c.tenant_id, 'debit', -c.amount,
           t.balance - sum(c.amount) OVER (PARTITION BY c.tenant_id ORDER BY c.delivery_id),
           c.delivery_id, c.attempt_no, c.message_kind
      FROM charge AS c JOIN tenant AS t ON t.id = c.tenant_id
     ORDER BY c.tenant_id, c.delivery_id
    RETURNING tenant_id, amount
)
UPDATE tenant AS t SET balance = t.balance + s.amount, updated_at = now()
  FROM (SELECT tenant_id, sum(amount)::bigint AS amount FROM written GROUP BY tenant_id) AS s
 WHERE t.id = s.tenant_id AND t.balance >= -s.amount
RETURNING t.id, t.balance

-- name: open_debits
-- Debits that were not given back, of deliveries that ended unsent or will be paid for anew.
-- Needs tenant_ledger_attempt; otherwise primary keys only.
SELECT l.tenant_id, l.delivery_id, l.attempt_no, -l.amount, l.message_kind
  FROM unnest(%(ids)s::bigint[]) AS asked (id)
  JOIN tenant_ledger AS l ON l.delivery_id = asked.id AND l.kind = 'debit'
  LEFT JOIN delivery AS d ON d.id = asked.id
 WHERE (d.id IS NULL OR d.status IN ('FAILED', 'DEAD', 'SKIPPED', 'CANCELED', 'EXPIRED'))
   AND NOT EXISTS (SELECT FROM tenant_ledger AS r
                    WHERE r.delivery_id = l.delivery_id AND r.attempt_no = l.attempt_no
                      AND r.kind = 'refund')

-- name: refund
-- The debited amount, once: whoever comes second writes nothing and adds nothing.
WITH back AS MATERIALIZED (
    SELECT * FROM unnest(%(tenants)s::bigint[], %(ids)s::bigint[], %(attempts)s::int[],
                         %(amounts)s::bigint[], %(kinds)s::text[])
        AS c (tenant_id, delivery_id, attempt_no, amount, message_kind)
     WHERE NOT EXISTS (SELECT FROM tenant_ledger AS r
                        WHERE r.delivery_id = c.delivery_id AND r.attempt_no = c.attempt_no
                          AND r.kind = 'refund')
), written AS (
    INSERT INTO tenant_ledger (tenant_id, kind, amount, balance_after, delivery_id, attempt_no,
                               message_kind)
    SELECT c.tenant_id, 'refund', c.amount,
           t.balance + sum(c.amount) OVER (PARTITION BY c.tenant_id
                                               ORDER BY c.delivery_id, c.attempt_no),
           c.delivery_id, c.attempt_no, c.message_kind
      FROM back AS c JOIN tenant AS t ON t.id = c.tenant_id
     ORDER BY c.tenant_id, c.delivery_id, c.attempt_no
        ON CONFLICT DO NOTHING
    RETURNING tenant_id, amount
)
UPDATE tenant AS t SET balance = t.balance + s.amount, updated_at = now()
  FROM (SELECT tenant_id, sum(amount)::bigint AS amount FROM written GROUP BY tenant_id) AS s
 WHERE t.id = s.tenant_id

-- name: hold
-- What goes on with its debit: it waits for another try, or for an operator's word. A success
-- or an end is settled; only debits that are still open are held.
INSERT INTO tenant_hold (delivery_id)
SELECT d.id FROM delivery AS d
 WHERE d.id = ANY (%(ids)s::bigint[]) AND d.status IN ('PENDING', 'HELD')
   AND EXISTS (SELECT FROM tenant_ledger AS l
                WHERE l.delivery_id = d.id AND l.kind = 'debit'
                  AND NOT EXISTS (SELECT FROM tenant_ledger AS r
                                   WHERE r.delivery_id = l.delivery_id
                                     AND r.attempt_no = l.attempt_no AND r.kind = 'refund'))
    ON CONFLICT DO NOTHING

-- name: holds_ended
-- Held debits of deliveries that were cancelled, expired or deleted while they waited.
SELECT h.delivery_id
  FROM tenant_hold AS h
  LEFT JOIN delivery AS d ON d.id = h.delivery_id
 WHERE d.id IS NULL OR d.status IN ('CANCELED', 'EXPIRED', 'DEAD', 'SKIPPED')
 ORDER BY h.delivery_id
 LIMIT 500
   FOR UPDATE OF h SKIP LOCKED

-- name: warned
UPDATE tenant SET warned_at = now(), updated_at = now() WHERE id = ANY (%(tenants)s::bigint[])

-- name: credit
-- A top-up; needs the tenant's lock. A key that was used before writes nothing.
WITH written AS (
    INSERT INTO tenant_ledger (tenant_id, kind, amount, balance_after, idempotency_key, note)
    SELECT t.id, %(kind)s, %(amount)s, t.balance + %(amount)s, %(key)s, %(note)s
      FROM tenant AS t WHERE t.id = %(tenant)s
        ON CONFLICT DO NOTHING
    RETURNING *
), added AS (
    UPDATE tenant AS t
       SET balance = t.balance + written.amount, warned_at = NULL, updated_at = now()
      FROM written WHERE t.id = written.tenant_id
)
SELECT id, amount, balance_after, created_at, note FROM written

-- name: find_credit
-- Needs tenant_ledger_key.
SELECT id, amount, balance_after, created_at, note FROM tenant_ledger
 WHERE tenant_id = %(tenant)s AND idempotency_key = %(key)s
