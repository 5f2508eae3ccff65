-- Statements of the delivery box: what relays run against `delivery`.
-- Each runs in a transaction of its own with pinned plans (database/pool.py).

-- name: claim
-- Due work of one channel, timed work for at most half of it so that neither starves the other.
-- Needs delivery_timed and delivery_new. now() and not clock_timestamp(): a volatile function
-- is no index condition. The marks (one per priority) let it pass over what was claimed
-- before; the first row tells the new marks and the snapshot by which they are followed.
-- A mark rises to the highest id met so far or now, but not past work that is left:
-- `passed_over` finds the first that the limit left out, or that another transaction has locked
-- (it may roll back). Of the lowest n + 1 ids at most n were taken, so it need look no further.
-- One token proves the whole claim; a rescue gives each row another. A receipt is of one
-- attempt: what came for an earlier one must not be read when this one is settled.
WITH timed AS MATERIALIZED (
    SELECT id FROM delivery
     WHERE channel = %(channel)s AND status IN ('PENDING', 'FAILED') AND next_retry_at <= now()
       AND (expires_at IS NULL OR expires_at > now())
     ORDER BY next_retry_at
     LIMIT (%(limit)s::int + 1) / 2
       FOR NO KEY UPDATE SKIP LOCKED
), marks AS MATERIALIZED (
    SELECT mark, highest, (place - 1)::smallint AS priority
      FROM unnest(%(marks)s::bigint[], %(highest)s::bigint[])
           WITH ORDINALITY AS m (mark, highest, place)
), fresh AS MATERIALIZED (
    SELECT marks.priority, due.id
      FROM marks CROSS JOIN LATERAL (
          SELECT id FROM delivery
           WHERE channel = %(channel)s AND priority = marks.priority AND id + 0 > marks.mark
             AND status = 'PENDING' AND next_retry_at IS NULL
             AND (expires_at IS NULL OR expires_at > now())
           ORDER BY id + 0
           LIMIT %(limit)s::int
             FOR NO KEY UPDATE SKIP LOCKED) AS due
     LIMIT %(limit)s::int - (SELECT count(*) FROM timed)
), reached AS MATERIALIZED (
    SELECT marks.priority, marks.mark, count(fresh.id) AS taken,
           greatest(marks.highest, max(fresh.id)) AS id
      FROM marks LEFT JOIN fresh USING (priority)
     GROUP BY marks.priority, marks.mark, marks.highest
), passed_over AS (
    SELECT priority, min(id) AS id
      FROM (SELECT reached.priority, seen.id
              FROM reached CROSS JOIN LATERAL (
                  SELECT id FROM delivery
                   WHERE channel = %(channel)s AND priority = reached.priority
                     AND id + 0 > reached.mark AND id + 0 <= reached.id
                     AND status = 'PENDING' AND next_retry_at IS NULL
                     AND (expires_at IS NULL OR expires_at > now())
                   ORDER BY id + 0
                   LIMIT reached.taken + 1) AS seen
            EXCEPT ALL
            SELECT priority, id FROM fresh) AS locked
     GROUP BY priority
), progress AS MATERIALIZED (
    SELECT array_agg(coalesce(passed_over.id - 1, reached.id) ORDER BY priority) AS marks,
           pg_current_snapshot()::text AS snapshot,
           age(pg_snapshot_xmax(pg_current_snapshot())::xid) AS unlisted,
           pg_current_xact_id_if_assigned()::text AS own,
           (SELECT count(*) FROM timed) = (%(limit)s::int + 1) / 2 AS more_timed
      FROM reached LEFT JOIN passed_over USING (priority)
), claimed AS (
    UPDATE delivery AS d
       SET status = 'PROCESSING', claim_token = %(token)s::uuid, attempts = d.attempts + 1,
           lease_owner = %(worker)s, lease_until = clock_timestamp() + %(lease)s * interval '1 second',
           receipt_status = NULL, receipt_at = NULL, updated_at = now()
      FROM (SELECT id FROM timed UNION ALL SELECT id FROM fresh) AS due
     WHERE d.id = due.id
    RETURNING d.*
), opened AS (
    INSERT INTO delivery_attempt (delivery_id, attempt_no, worker)
    SELECT id, attempts, %(worker)s FROM claimed
)
SELECT CASE WHEN row_number() OVER () = 1 THEN progress.marks END,
       CASE WHEN row_number() OVER () = 1 THEN progress.snapshot END,
       progress.unlisted, progress.own, progress.more_timed,
       d.id, d.attempts, d.retry_count, d.max_attempts, d.rescue_count,
       d.then_steps IS NOT NULL OR d.fallback_steps IS NOT NULL,
       d.error_code = %(reserved)s AND d.next_retry_at > now() - interval '5 seconds',
       d.notification_id, d.recipient, d.template_code, nullif(d.payload, '{}'), d.row_key, d.tenant_id,
       d.provider_id, d.error_code, d.guard,
       n.title, n.message, n.type, n.source, nullif(n.data, '{}'), n.created_at, n.traceparent
  FROM progress
  LEFT JOIN (claimed AS d JOIN notification AS n ON n.id = d.notification_id) ON true

-- name: rescue
-- Work whose lease ran out, longest ago first: a new claim of the same attempt.
-- Needs delivery_leased.
WITH lost AS MATERIALIZED (
    SELECT id FROM delivery
     WHERE channel = %(channel)s AND status = 'PROCESSING' AND lease_until < now()
     ORDER BY lease_until
     LIMIT %(limit)s::int
       FOR NO KEY UPDATE SKIP LOCKED
), d AS (
    UPDATE delivery AS d
       SET claim_token = %(token)s::uuid, rescue_count = d.rescue_count + 1,
           lease_owner = %(worker)s, lease_until = clock_timestamp() + %(lease)s * interval '1 second',
           updated_at = now()
      FROM lost
     WHERE d.id = lost.id
    RETURNING d.*
)
SELECT NULL, NULL, NULL, NULL, NULL,
       d.id, d.attempts, d.retry_count, d.max_attempts, d.rescue_count,
       d.then_steps IS NOT NULL OR d.fallback_steps IS NOT NULL,
       false,
       d.notification_id, d.recipient, d.template_code, nullif(d.payload, '{}'), d.row_key, d.tenant_id,
       d.provider_id, d.error_code, d.guard,
       n.title, n.message, n.type, n.source, nullif(n.data, '{}'), n.created_at, n.traceparent
  FROM d JOIN notification AS n ON n.id = d.notification_id

-- name: lock_families
-- Before settling work that may have children: cancel takes the same lock first, so a child
-- is born either before the cancel sees it or knowing of it.
SELECT n.id FROM notification AS n
 WHERE n.id = ANY (%(notifications)s::uuid[])
 ORDER BY n.id
   FOR SHARE

-- name: settle
-- Attempt, state and children in one statement, guarded by the claim token; or, for what was
-- accepted before (no token), by the state ACCEPTED and the provider's id. Primary keys only.
-- A receipt of arrival that came before it wins over what the relay saw; what was cancelled
-- while it was under way is not tried again.
-- Kept below 4096 characters: psycopg reads a longer text anew each time.
WITH s AS MATERIALIZED (
    SELECT *
      FROM unnest(%(ids)s::bigint[], %(tokens)s::uuid[], %(statuses)s::text[], %(outcomes)s::text[],
                  %(delays)s::float8[], %(spent)s::boolean[], %(codes)s::text[], %(errors)s::text[],
                  %(http_statuses)s::int[], %(responses)s::text[], %(provider_ids)s::text[],
                  %(message_ids)s::text[], %(receipts)s::text[])
        AS s (id, token, status, outcome, delay, spent, code, error, http_status, response,
              provider_id, provider_message_id, receipt)
), done AS (
    UPDATE delivery AS d
       SET status = CASE WHEN s.token IS NOT NULL AND d.receipt_status = 'DELIVERED' THEN 'SUCCESS'
                         WHEN d.canceled_at IS NULL OR s.delay IS NULL THEN s.status
                         ELSE 'CANCELED' END,
           retry_count = d.retry_count + s.spent::int,
           rescue_count = CASE WHEN s.spent THEN 0 ELSE d.rescue_count END,
           next_retry_at = now() + s.delay * interval '1 second',
           error_code = s.code,
           last_error = s.error,
           provider_id = coalesce(s.provider_id, d.provider_id),
           provider_message_id = coalesce(s.provider_message_id, d.provider_message_id),
           receipt_status = coalesce(s.receipt, d.receipt_status),
           receipt_at = CASE WHEN s.receipt IS NULL THEN d.receipt_at ELSE now() END,
           sent_at = CASE WHEN s.status IN ('SUCCESS', 'ACCEPTED') AND s.token IS NOT NULL
                          THEN now() ELSE d.sent_at END,
           superseded_by = CASE WHEN s.status = 'DEAD' AND d.fallback_steps IS NOT NULL
                                THEN nextval('delivery_id_seq') ELSE d.superseded_by END,
           claim_token = NULL, lease_owner = NULL, lease_until = NULL, updated_at = now()
      FROM s
     WHERE d.id = s.id
       AND CASE WHEN s.token IS NULL
                THEN d.status = 'ACCEPTED' AND d.provider_id IS NOT DISTINCT FROM s.provider_id
                ELSE d.status = 'PROCESSING' AND d.claim_token = s.token END
    RETURNING d.id, attempts, d.status, notification_id, tenant_id, priority, expires_at,
              then_steps, fallback_steps, superseded_by, receipt_status, d.provider_id AS known_as,
              token, outcome, code, error, http_status, response, s.provider_id, receipt
), closed AS (
    UPDATE delivery_attempt AS a
       SET finished_at = coalesce(a.finished_at, now()),
           outcome = CASE WHEN token IS NULL THEN a.outcome ELSE done.outcome END,
           http_status = coalesce(done.http_status, a.http_status),
           error_code = coalesce(code, a.error_code),
           error = coalesce(done.error, a.error),
           response = coalesce(done.response, a.response),
           provider_id = coalesce(done.provider_id, a.provider_id),
           receipt_status = coalesce(receipt, a.receipt_status),
           updated_at = now()
      FROM done
     WHERE a.delivery_id = done.id AND a.attempt_no = done.attempts
), steps AS (
    SELECT id AS parent_id, notification_id, tenant_id, priority, expires_at, 'then' AS step,
           NULL::bigint AS id, entry, coalesce(entry -> 'fallback', '[]') AS fallback
      FROM done CROSS JOIN LATERAL jsonb_array_elements(then_steps) AS t (entry)
     WHERE status = 'SUCCESS'
    UNION ALL
    SELECT id, notification_id, tenant_id, priority, expires_at, 'fallback', superseded_by,
           fallback_steps -> 0,
           coalesce(fallback_steps -> 0 -> 'fallback', '[]') || (fallback_steps - 0)
      FROM done WHERE status = 'DEAD' AND fallback_steps IS NOT NULL
), born AS (
    INSERT INTO delivery (id, notification_id, parent_id, step, tenant_id, channel, recipient,
                          template_code, payload, row_key, priority, status, max_attempts,
                          expires_at, then_steps, fallback_steps, guard)
    SELECT coalesce(steps.id, nextval('delivery_id_seq')), steps.notification_id, parent_id,
           step, steps.tenant_id, entry ->> 'channel', entry ->> 'recipient',
           entry ->> 'template_code', coalesce(entry -> 'payload', '{}'),
           entry ->> 'row_key', steps.priority,
           CASE WHEN n.canceled_at IS NULL THEN 'PENDING' ELSE 'CANCELED' END,
           (entry ->> 'max_attempts')::int, steps.expires_at,
           nullif(nullif(entry -> 'then', '[]'), 'null'), nullif(fallback, '[]'),
           nullif(entry -> 'guard', 'null')
      FROM steps JOIN notification AS n ON n.id = steps.notification_id
    ON CONFLICT DO NOTHING
    RETURNING id, channel, parent_id
)
SELECT done.id, done.status, done.receipt_status,
       (SELECT array_agg(born.channel) FROM born WHERE born.parent_id = done.id),
       done.superseded_by IS NOT NULL
           AND NOT EXISTS (SELECT FROM born WHERE born.id = done.superseded_by),
       done.known_as
  FROM done

-- name: forget_unborn_fallback
-- A fallback whose row_key is taken was not made: its parent stays the last word of its branch.
UPDATE delivery SET superseded_by = NULL, updated_at = now() WHERE id = ANY (%(ids)s::bigint[])

-- name: record_provider_id
-- Before anything irrevocable is sent: durable, and only while every claim is ours.
-- Primary keys only.
WITH held AS MATERIALIZED (
    SELECT d.id, d.attempts
      FROM unnest(%(ids)s::bigint[], %(tokens)s::uuid[]) AS s (id, token)
      JOIN delivery AS d ON d.id = s.id AND d.claim_token = s.token
     ORDER BY d.id
       FOR NO KEY UPDATE OF d
), whole AS (
    SELECT count(*) = cardinality(%(ids)s::bigint[]) AS ours FROM held
), noted AS (
    UPDATE delivery AS d SET provider_id = %(provider_id)s, updated_at = now()
      FROM held, whole WHERE d.id = held.id AND whole.ours
), attempted AS (
    UPDATE delivery_attempt AS a SET provider_id = %(provider_id)s, updated_at = now()
      FROM held, whole WHERE a.delivery_id = held.id AND a.attempt_no = held.attempts AND whole.ours
)
SELECT ours FROM whole

-- name: extend
-- Primary key only: with `status` in the condition the planner may take delivery_leased for
-- small and walk over all that is in flight. Only what is PROCESSING has a token.
UPDATE delivery AS d
   SET lease_until = clock_timestamp() + %(lease)s * interval '1 second', updated_at = now()
  FROM unnest(%(ids)s::bigint[], %(tokens)s::uuid[]) AS s (id, token)
 WHERE d.id = s.id AND d.claim_token = s.token
RETURNING d.id

-- name: expire
-- Needs delivery_expiring.
WITH past AS MATERIALIZED (
    SELECT id FROM delivery
     WHERE status IN ('PENDING', 'FAILED') AND expires_at <= now()
     ORDER BY expires_at
     LIMIT 1000
       FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE delivery AS d
   SET status = 'EXPIRED', error_code = 'expired', next_retry_at = NULL, updated_at = now()
  FROM past WHERE d.id = past.id
RETURNING d.id

-- name: unreceipted
-- Accepted so long ago that no receipt will come. Needs delivery_unreceipted.
SELECT id, provider_id, notification_id FROM delivery
 WHERE status = 'ACCEPTED' AND sent_at < now() - %(patience)s * interval '1 second'
 ORDER BY sent_at LIMIT 500

-- name: next_due
-- Needs delivery_timed.
SELECT extract(epoch FROM next_retry_at - clock_timestamp())::float8 FROM delivery
 WHERE channel = %(channel)s AND status IN ('PENDING', 'FAILED') AND next_retry_at IS NOT NULL
   AND (expires_at IS NULL OR expires_at > now())
 ORDER BY next_retry_at LIMIT 1

-- name: backlog
-- Runs for metrics only, on the partial indexes of unfinished work.
SELECT channel,
       count(*) FILTER (WHERE status = 'PENDING'),
       count(*) FILTER (WHERE status = 'FAILED'),
       extract(epoch FROM now() - min(coalesce(next_retry_at, created_at))
           FILTER (WHERE coalesce(next_retry_at, created_at) <= now()))::float8
  FROM delivery WHERE status IN ('PENDING', 'FAILED') GROUP BY channel

-- name: parked
-- Needs delivery_parked.
SELECT channel, count(*) FROM delivery WHERE status IN ('DEAD', 'HELD') GROUP BY channel

-- name: receipt_families
-- Whose attempts receipts speak of. Not locked: the notification comes first, and neither of
-- these ever changes. Primary keys only.
SELECT r.place, d.notification_id
  FROM unnest(%(ids)s::bigint[], %(provider_ids)s::text[])
       WITH ORDINALITY AS r (id, provider_id, place)
  JOIN delivery AS d ON d.id = r.id
 WHERE EXISTS (SELECT FROM delivery_attempt AS a
                WHERE a.delivery_id = d.id AND a.provider_id = r.provider_id)

-- name: lock_receipts
-- Primary key only.
SELECT d.id, d.status, d.retry_count, d.max_attempts
  FROM delivery AS d WHERE d.id = ANY (%(ids)s::bigint[])
 ORDER BY d.id
   FOR NO KEY UPDATE

-- name: note_receipts
-- What receipts say of attempts; of a delivery only where that is its last one and its settle
-- is still to come or said ACCEPTED. The first final receipt wins. Primary keys only.
WITH noted AS (
    UPDATE delivery_attempt AS a SET receipt_status = r.receipt, updated_at = now()
      FROM unnest(%(ids)s::bigint[], %(provider_ids)s::text[], %(receipts)s::text[])
        AS r (id, provider_id, receipt)
     WHERE a.delivery_id = r.id AND a.provider_id = r.provider_id AND a.receipt_status IS NULL
    RETURNING a.delivery_id, a.attempt_no, a.provider_id, a.receipt_status AS receipt
), last AS (
    UPDATE delivery AS d
       SET receipt_status = noted.receipt, receipt_at = clock_timestamp(), updated_at = now()
      FROM noted
     WHERE d.id = noted.delivery_id AND d.attempts = noted.attempt_no
       AND d.status IN ('PROCESSING', 'ACCEPTED')
    RETURNING d.id, noted.provider_id AS known_as
)
SELECT noted.delivery_id, noted.provider_id, bool_or(last.id IS NOT NULL)
  FROM noted LEFT JOIN last ON last.id = noted.delivery_id AND last.known_as = noted.provider_id
 GROUP BY noted.delivery_id, noted.provider_id
