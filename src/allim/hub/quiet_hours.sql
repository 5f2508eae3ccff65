-- name: quiet_hours_json
-- A fragment: one window `q` as QuietHoursView has it.
json_build_object('id', q.id, 'tenant_id', q.tenant_id, 'channel', q.channel,
    'from', to_char(q.begins, 'HH24:MI'), 'until', to_char(q.ends, 'HH24:MI'),
    'time_zone', q.time_zone, 'days', q.days, 'exempt', q.exempt, 'reason', q.reason,
    'created_by', q.created_by, 'created_at', q.created_at)

-- name: add
INSERT INTO quiet_hours AS q (tenant_id, channel, begins, ends, time_zone, days, exempt, reason,
                              created_by)
VALUES (%(tenant)s, %(channel)s, %(begins)s, %(ends)s, %(time_zone)s, %(days)s, %(exempt)s,
        %(reason)s, %(created_by)s)
RETURNING {quiet_hours}

-- name: list
SELECT {quiet_hours} FROM quiet_hours AS q
 WHERE (CAST(%(before)s AS bigint) IS NULL OR q.id < %(before)s)
   AND (CAST(%(tenant)s AS bigint) IS NULL OR q.tenant_id IS NULL OR q.tenant_id = %(tenant)s)
 ORDER BY q.id DESC LIMIT %(limit)s

-- name: remove
DELETE FROM quiet_hours AS q
 WHERE q.id = %(id)s AND (CAST(%(tenant)s AS bigint) IS NULL OR q.tenant_id = %(tenant)s)
RETURNING q.tenant_id, q.channel

-- name: lock_change
-- First of all in a change of windows. Whoever settles what it has put off holds this lock shared
-- until that can be seen by `wake`, or finds it taken and knows that a change is under way.
SELECT pg_advisory_xact_lock(4210755, 18)

-- name: no_change
SELECT pg_try_advisory_xact_lock_shared(4210755, 18)

-- name: wake
-- What waits in quiet hours that a change of windows may concern is judged anew. Locked ones are
-- waited for, in the order of ids: their transaction may roll back, or leave them as they are.
-- Needs delivery_timed.
WITH waiting AS MATERIALIZED (
    SELECT id FROM delivery
     WHERE status = 'PENDING' AND next_retry_at > clock_timestamp() AND error_code = %(code)s
       AND (CAST(%(channel)s AS text) IS NULL OR channel = %(channel)s)
       AND (CAST(%(tenant)s AS bigint) IS NULL OR tenant_id = %(tenant)s)
     ORDER BY id FOR NO KEY UPDATE)
UPDATE delivery AS d SET next_retry_at = clock_timestamp(), updated_at = now()
  FROM waiting WHERE d.id = waiting.id

-- name: wait
-- Until when what was just put off had better wait. Primary key only.
UPDATE delivery AS d
   SET next_retry_at = clock_timestamp() + w.seconds * interval '1 second', updated_at = now()
  FROM unnest(%(ids)s::bigint[], %(seconds)s::float8[]) AS w (id, seconds)
 WHERE d.id = w.id AND d.status = 'PENDING' AND d.error_code = %(code)s

-- name: rules
-- All of them: a relay keeps them for some seconds.
SELECT tenant_id, channel, begins, ends, time_zone, days, exempt FROM quiet_hours ORDER BY id

-- name: now
SELECT clock_timestamp()

-- name: priorities
-- Primary key only.
SELECT id, priority FROM delivery WHERE id = ANY (%(ids)s::bigint[])
