-- name: canceled
-- Which of these deliveries have a reservation that was cancelled. Needs the unique index.
SELECT w.id
  FROM unnest(%(ids)s::bigint[], %(tenants)s::bigint[], %(reservations)s::text[])
    AS w (id, tenant_id, reservation_id)
 WHERE EXISTS (SELECT FROM reservation_cancellation AS c
                WHERE c.reservation_id = w.reservation_id
                  AND (c.tenant_id IS NULL OR c.tenant_id = w.tenant_id))

-- name: cancel
INSERT INTO reservation_cancellation (tenant_id, reservation_id)
VALUES (%(tenant)s, %(reservation)s)
    ON CONFLICT DO NOTHING

-- name: cancel_deliveries
-- A statement after the insert, in the same transaction: whoever creates a delivery meanwhile is
-- caught by the check before the send. What is under way is marked: it is not tried again.
-- Needs delivery_reservation.
WITH meant AS MATERIALIZED (
    SELECT id, status FROM delivery
     WHERE guard ->> 'reservation_id' = %(reservation)s AND guard IS NOT NULL
       AND status IN ('PENDING', 'FAILED', 'PROCESSING')
       AND (CAST(%(tenant)s AS bigint) IS NULL OR tenant_id = %(tenant)s)
     ORDER BY id
       FOR NO KEY UPDATE
)
UPDATE delivery AS d
   SET status = CASE WHEN meant.status = 'PROCESSING' THEN d.status ELSE 'CANCELED' END,
       next_retry_at = CASE WHEN meant.status = 'PROCESSING' THEN d.next_retry_at END,
       error_code = CASE WHEN meant.status = 'PROCESSING' THEN d.error_code
                         ELSE 'reservation_cancelled' END,
       canceled_at = now(), updated_at = now()
  FROM meant WHERE d.id = meant.id
RETURNING d.id, d.status
