-- name: remember
-- Those of some deliveries that are dead letters for good (no fallback took their place) and came
-- from the queue. In the transaction that buried them.
INSERT INTO dead_letter_copy (delivery_id, attempt_no)
SELECT d.id, d.attempts
  FROM delivery AS d JOIN notification AS n ON n.id = d.notification_id
 WHERE d.id = ANY (%(ids)s::bigint[]) AND d.status = 'DEAD' AND d.superseded_by IS NULL
   AND n.data ? 'queue'
    ON CONFLICT DO NOTHING

-- name: due
-- What is to be copied, with all that a copy says. Another process copies others.
SELECT c.delivery_id, c.attempt_no, n.data ->> 'queue', n.data ->> 'job_id', d.tenant_id,
       d.channel, d.recipient, d.error_code, d.last_error, d.provider_id, n.id, d.updated_at,
       n.message, n.data -> 'reservation_id', n.data ->> 'message_mode'
  FROM dead_letter_copy AS c
  JOIN delivery AS d ON d.id = c.delivery_id
  JOIN notification AS n ON n.id = d.notification_id
 ORDER BY c.created_at
 LIMIT %(limit)s
   FOR UPDATE OF c SKIP LOCKED

-- name: copied
DELETE FROM dead_letter_copy AS c
 USING unnest(%(ids)s::bigint[], %(attempts)s::int[]) AS w (delivery_id, attempt_no)
 WHERE c.delivery_id = w.delivery_id AND c.attempt_no = w.attempt_no

-- name: orphans
-- Copies of what was deleted meanwhile.
DELETE FROM dead_letter_copy AS c
 WHERE NOT EXISTS (SELECT FROM delivery AS d WHERE d.id = c.delivery_id)

-- name: waiting
SELECT count(*) FROM dead_letter_copy
