-- name: fitting
-- A fragment: which deliveries a filter means: of a branch only its last word.
-- `d.status IN (…)` lets delivery_parked be used.
d.status IN ('DEAD', 'HELD', 'SKIPPED') AND d.superseded_by IS NULL
AND (CAST(%(tenant_id)s AS bigint) IS NULL OR d.tenant_id = %(tenant_id)s)
AND (CAST(%(error_code)s AS text) IS NULL OR d.error_code = %(error_code)s)
AND (CAST(%(recipient)s AS text) IS NULL OR d.recipient = %(recipient)s)
AND (CAST(%(notification_id)s AS uuid) IS NULL OR d.notification_id = %(notification_id)s)
AND (CAST(%(from)s AS timestamptz) IS NULL OR d.created_at >= %(from)s)
AND (CAST(%(to)s AS timestamptz) IS NULL OR d.created_at < %(to)s)
AND ((CAST(%(source)s AS text) IS NULL AND CAST(%(type)s AS text) IS NULL) OR EXISTS (
    SELECT FROM notification n
     WHERE n.id = d.notification_id
       AND (CAST(%(source)s AS text) IS NULL OR n.source = %(source)s)
       AND (CAST(%(type)s AS text) IS NULL OR n.type = %(type)s)))

-- name: count
-- What a replay would send, in groups. Needs delivery_parked.
SELECT d.channel, d.status, d.error_code, count(*)
  FROM delivery d
 WHERE d.status = ANY (%(statuses)s)
   AND (CAST(%(channels)s AS text[]) IS NULL OR d.channel = ANY (%(channels)s))
   AND {fitting}
 GROUP BY d.channel, d.status, d.error_code
 ORDER BY count(*) DESC, d.channel, d.status, d.error_code

-- name: newest
-- No job looks at what is younger than itself.
SELECT coalesce(max(id), 0) FROM delivery

-- name: create
INSERT INTO replay_job AS j (tenant_id, filter, statuses, channels, up_to, rate_per_second, total,
                             reason, requested_by, status, finished_at)
VALUES (%(tenant_id)s, %(filter)s, %(statuses)s, %(channels)s, %(up_to)s, %(rate)s, %(total)s,
        %(reason)s, %(by)s,
        CASE WHEN %(total)s = 0 THEN 'COMPLETED' ELSE 'RUNNING' END,
        CASE WHEN %(total)s = 0 THEN now() END)
RETURNING {job}

-- name: job
-- A fragment: a job as JSON.
json_build_object(
    'id', j.id, 'tenant_id', j.tenant_id, 'status', j.status, 'filter', j.filter,
    'rate_per_second', j.rate_per_second, 'total', j.total, 'replayed', j.replayed,
    'skipped', j.skipped, 'reason', j.reason, 'requested_by', j.requested_by,
    'created_at', j.created_at, 'updated_at', j.updated_at, 'finished_at', j.finished_at)

-- name: one
SELECT {job} FROM replay_job j
 WHERE j.id = %(id)s AND (CAST(%(tenant)s AS bigint) IS NULL OR j.tenant_id = %(tenant)s)

-- name: list
SELECT {job} FROM replay_job j
 WHERE (CAST(%(before)s AS bigint) IS NULL OR j.id < %(before)s)
   AND (CAST(%(tenant)s AS bigint) IS NULL OR j.tenant_id = %(tenant)s)
 ORDER BY j.id DESC LIMIT %(limit)s

-- name: move
-- From one of some states to another; waits for a step that is under way.
UPDATE replay_job AS j
   SET status = %(to)s, next_step_at = clock_timestamp(), updated_at = now(),
       finished_at = CASE WHEN %(to)s = 'CANCELED' THEN now() END
 WHERE j.id = %(id)s AND (CAST(%(tenant)s AS bigint) IS NULL OR j.tenant_id = %(tenant)s)
   AND j.status = ANY (%(from)s)
RETURNING {job}

-- name: take
-- The job whose step is due first, locked until the step is committed: that lock is all that
-- coordinates relays, and what a dead one had done of its step is rolled back. Needs
-- replay_job_due.
SELECT id, tenant_id, filter, statuses, channels, last_id, up_to, rate_per_second
  FROM replay_job
 WHERE status = 'RUNNING' AND next_step_at <= clock_timestamp()
 ORDER BY next_step_at
 LIMIT 1
   FOR UPDATE SKIP LOCKED

-- name: next
-- The next deliveries of a job. For each state and channel the lowest ids come from
-- delivery_parked; of these the lowest of all. `alone`: nothing above or beneath it.
SELECT due.id, due.notification_id, due.alone
  FROM unnest(%(statuses)s::text[]) AS s (status)
 CROSS JOIN unnest(%(channels)s::text[]) AS c (channel)
 CROSS JOIN LATERAL (
       SELECT d.id, d.notification_id,
              d.parent_id IS NULL
                  AND NOT EXISTS (SELECT FROM delivery child WHERE child.parent_id = d.id) AS alone
         FROM delivery d
        WHERE d.status = s.status AND d.channel = c.channel
          AND d.id > %(last_id)s AND d.id <= %(up_to)s AND {fitting}
        ORDER BY d.id
        LIMIT %(limit)s) AS due
 ORDER BY due.id
 LIMIT %(limit)s

-- name: lock_notifications
-- First, as everybody does: then no cancel and no birth of a child comes between.
SELECT id FROM notification WHERE id = ANY (%(ids)s) ORDER BY id FOR NO KEY UPDATE

-- name: send_again
-- Deliveries that stand alone, all at once; what changed meanwhile is left as it is.
-- `as_new` stands in operations.sql.
WITH ready AS MATERIALIZED (
    SELECT d.id FROM delivery d JOIN notification n ON n.id = d.notification_id
     WHERE d.id = ANY (%(ids)s) AND d.status = ANY (%(statuses)s) AND d.superseded_by IS NULL
       AND (d.expires_at IS NULL OR d.expires_at > now()) AND n.canceled_at IS NULL
     ORDER BY d.id
       FOR NO KEY UPDATE OF d)
UPDATE delivery d
   SET {as_new}
  FROM ready WHERE d.id = ready.id
RETURNING d.channel

-- name: advance
UPDATE replay_job
   SET last_id = %(last_id)s, replayed = replayed + %(replayed)s, skipped = skipped + %(skipped)s,
       next_step_at = clock_timestamp() + %(pause)s * interval '1 second',
       status = CASE WHEN %(ended)s THEN 'COMPLETED' ELSE status END,
       finished_at = CASE WHEN %(ended)s THEN clock_timestamp() END,
       updated_at = now()
 WHERE id = %(id)s

-- name: next_step_in
-- Seconds until the next step of any job. Needs replay_job_due.
SELECT extract(epoch FROM next_step_at - clock_timestamp())::float8
  FROM replay_job WHERE status = 'RUNNING' ORDER BY next_step_at LIMIT 1
