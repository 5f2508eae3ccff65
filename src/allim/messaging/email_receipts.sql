-- name: note
-- What was reported of mails, on their deliveries; whom they went to is told for each that is
-- found, in whatever state. Only a delivery that ended well is noted on: what is still under way
-- is settled by its relay. Of several reports of one the failure counts (its word sorts last),
-- and those that say nothing of its arrival do not. A failure that was noted is not taken back by a "delivered" that comes
-- late. Locked by id, as everywhere. Primary key only.
WITH reported AS (
    SELECT DISTINCT ON (w.id, w.notification_id) w.id, w.notification_id, w.receipt
      FROM unnest(%(ids)s::bigint[], %(notifications)s::uuid[], %(receipts)s::text[])
        AS w (id, notification_id, receipt)
     ORDER BY w.id, w.notification_id, w.receipt DESC NULLS LAST
),
found AS MATERIALIZED (
    SELECT d.id, d.notification_id, d.recipient, d.tenant_id, d.status, d.receipt_status, r.receipt
      FROM delivery AS d
      JOIN reported AS r ON r.id = d.id AND r.notification_id = d.notification_id
     WHERE d.channel = ANY (%(channels)s::text[]) AND d.recipient IS NOT NULL
     ORDER BY d.id
       FOR NO KEY UPDATE OF d
),
noted AS (
    UPDATE delivery AS d
       SET receipt_status = f.receipt, receipt_at = clock_timestamp(), updated_at = now()
      FROM found AS f
     WHERE d.id = f.id AND f.status = 'SUCCESS' AND f.receipt IS NOT NULL
       AND (f.receipt_status IS NULL OR f.receipt <> 'DELIVERED')
)
SELECT id, notification_id, recipient, tenant_id FROM found
