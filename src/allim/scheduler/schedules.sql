-- name: create
-- The database's clock, not the transaction's beginning: what fires is what comes from now on.
INSERT INTO schedule (name, job, parameters, cron, timezone, enabled, decided_until)
SELECT %(name)s, %(job)s, %(parameters)s, %(cron)s, %(timezone)s, %(enabled)s, clock_timestamp()
 WHERE (SELECT count(*) FROM schedule) < %(limit)s
    ON CONFLICT (name) DO NOTHING
RETURNING id

-- name: name_taken
SELECT 1 FROM schedule WHERE name = %(name)s

-- name: list
-- Newest first; the newest fire of each is one step in the unique index on (schedule_id, due_at).
SELECT {columns}
  FROM schedule s
  LEFT JOIN LATERAL (
       SELECT * FROM schedule_fire f WHERE f.schedule_id = s.id ORDER BY f.due_at DESC LIMIT 1
  ) f ON true
 WHERE CAST(%(before)s AS bigint) IS NULL OR s.id < %(before)s
 ORDER BY s.id DESC
 LIMIT %(limit)s

-- name: one
SELECT {columns}
  FROM schedule s
  LEFT JOIN LATERAL (
       SELECT * FROM schedule_fire f WHERE f.schedule_id = s.id ORDER BY f.due_at DESC LIMIT 1
  ) f ON true
 WHERE s.id = %(id)s

-- name: columns
clock_timestamp(), s.decided_until, s.id, s.name, s.job, s.parameters, s.cron, s.timezone,
s.enabled, s.created_at, s.updated_at, CASE WHEN f.id IS NOT NULL THEN {fire} END

-- name: fire
jsonb_build_object(
    'id', f.id, 'schedule_id', f.schedule_id, 'due_at', f.due_at, 'cause', f.cause,
    'status', f.status, 'run_id', f.run_id, 'error', f.error, 'worker', f.worker,
    'attempts', f.attempts, 'started_at', f.started_at, 'finished_at', f.finished_at)

-- name: find
SELECT id FROM schedule WHERE name = %(name)s

-- name: lock
SELECT name, job, parameters, cron, timezone, enabled
  FROM schedule WHERE id = %(id)s FOR NO KEY UPDATE

-- name: change
-- What is resumed, or comes at other times now, begins with the slots after this moment.
UPDATE schedule
   SET name = %(name)s, parameters = %(parameters)s, cron = %(cron)s, timezone = %(timezone)s,
       enabled = %(enabled)s, updated_at = now(),
       decided_until = CASE WHEN %(anew)s THEN clock_timestamp() ELSE decided_until END
 WHERE id = %(id)s

-- name: remove
DELETE FROM schedule WHERE id = %(id)s RETURNING id

-- name: open_fire
SELECT status, due_at FROM schedule_fire
 WHERE schedule_id = %(id)s AND status IN ('QUEUED', 'RUNNING')
 ORDER BY id LIMIT 1

-- name: request
-- Its lease is over from the beginning: any scheduler takes it.
INSERT INTO schedule_fire (schedule_id, due_at, cause, status, lease_until)
VALUES (%(id)s, clock_timestamp(), 'request', 'QUEUED', clock_timestamp())
RETURNING id

-- name: one_fire
SELECT {fire} FROM schedule_fire f WHERE f.id = %(id)s

-- name: fires
-- schedule_fire_listing
SELECT {fire}
  FROM schedule_fire f
 WHERE f.schedule_id = %(id)s
   AND (CAST(%(before)s AS bigint) IS NULL OR f.id < %(before)s)
 ORDER BY f.id DESC
 LIMIT %(limit)s
