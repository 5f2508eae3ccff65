-- name: park
-- Until then relays leave it to whoever sends it at once; should that one die, they take over.
UPDATE delivery
   SET next_retry_at = now() + %(seconds)s * interval '1 second', updated_at = now()
 WHERE id = %(id)s AND status = 'PENDING'

-- name: claim_one
-- A claim of one delivery by its id, due or not; its columns are those of the box's own claims.
-- Primary key only.
WITH d AS (
    UPDATE delivery AS d
       SET status = 'PROCESSING', claim_token = %(token)s::uuid, attempts = d.attempts + 1,
           lease_owner = %(worker)s,
           lease_until = clock_timestamp() + %(lease)s * interval '1 second',
           receipt_status = NULL, receipt_at = NULL, updated_at = now()
     WHERE d.id = %(id)s AND d.status = 'PENDING'
    RETURNING d.*
), opened AS (
    INSERT INTO delivery_attempt (delivery_id, attempt_no, worker)
    SELECT id, attempts, %(worker)s FROM d
)
SELECT NULL, NULL, NULL, NULL, NULL,
       d.id, d.attempts, d.retry_count, d.max_attempts, d.rescue_count,
       d.then_steps IS NOT NULL OR d.fallback_steps IS NOT NULL,
       false,
       d.notification_id, d.recipient, d.template_code, nullif(d.payload, '{}'), d.row_key, d.tenant_id,
       d.provider_id, d.error_code, d.guard,
       n.title, n.message, n.type, n.source, nullif(n.data, '{}'), n.created_at, n.traceparent
  FROM d JOIN notification AS n ON n.id = d.notification_id

-- name: standing
SELECT notification_id, status, error_code, last_error, provider_id, provider_message_id
  FROM delivery WHERE id = %(id)s
