-- name: read_enabled
-- All of them (there are at most a thousand), by the one clock that decides.
SELECT clock_timestamp(), s.id, s.name, s.job, s.cron, s.timezone, s.decided_until
  FROM (SELECT 1) AS once
  LEFT JOIN schedule s ON s.enabled
 ORDER BY s.decided_until

-- name: lock_undecided
-- Whoever else came to the same slots waits here, and then finds them decided. What was paused
-- or changed since it was read is not found either.
SELECT job, parameters
  FROM schedule
 WHERE id = %(id)s AND enabled AND cron = %(cron)s AND timezone = %(timezone)s
   AND decided_until = %(decided_until)s
   FOR NO KEY UPDATE

-- name: open_fire
-- A second statement, so a new snapshot: it sees the fire of whoever held the lock before.
SELECT due_at, status, worker
  FROM schedule_fire
 WHERE schedule_id = %(id)s AND status IN ('QUEUED', 'RUNNING')
 ORDER BY id
 LIMIT 1

-- name: decide
UPDATE schedule SET decided_until = %(until)s WHERE id = %(id)s

-- name: insert_ended
-- Slots that did not fire.
INSERT INTO schedule_fire (schedule_id, due_at, cause, status, error, worker, finished_at)
VALUES (%(id)s, %(due_at)s, 'slot', %(status)s, %(error)s, %(worker)s, clock_timestamp())
    ON CONFLICT (schedule_id, due_at) DO NOTHING

-- name: insert_running
INSERT INTO schedule_fire (schedule_id, due_at, cause, status, worker, attempts, claim_token,
                           lease_until, started_at)
VALUES (%(id)s, %(due_at)s, 'slot', 'RUNNING', %(worker)s, 1, gen_random_uuid(),
        clock_timestamp() + make_interval(secs => %(lease)s), clock_timestamp())
    ON CONFLICT (schedule_id, due_at) DO NOTHING
RETURNING id, claim_token

-- name: take_over
-- What somebody asked for, and what a process that ended had under way. schedule_fire_open.
WITH due AS MATERIALIZED (
    SELECT f.id, s.name, s.job, s.parameters
      FROM schedule_fire f
      JOIN schedule s ON s.id = f.schedule_id
     WHERE f.status IN ('QUEUED', 'RUNNING') AND f.lease_until <= clock_timestamp()
       AND s.job = ANY (%(jobs)s)
     ORDER BY f.due_at
     LIMIT %(limit)s
       FOR NO KEY UPDATE OF f SKIP LOCKED)
UPDATE schedule_fire f
   SET status = 'RUNNING', worker = %(worker)s, attempts = f.attempts + 1,
       claim_token = gen_random_uuid(),
       lease_until = clock_timestamp() + make_interval(secs => %(lease)s),
       started_at = coalesce(f.started_at, clock_timestamp()), updated_at = clock_timestamp()
  FROM due
 WHERE f.id = due.id
RETURNING f.id, f.claim_token, f.due_at, f.attempts, due.name, due.job, due.parameters

-- name: give_up
-- What waited too long to be taken over, or ended its process again and again.
UPDATE schedule_fire f
   SET status = CASE WHEN attempts = 0 THEN 'MISSED' ELSE 'FAILED' END,
       error = CASE
           WHEN attempts = 0 THEN 'no scheduler came to it within ten minutes'
           WHEN attempts >= %(attempts)s
               THEN format('its process ended %%s times while it ran', attempts)
           ELSE 'its process ended while it ran, and it could not be run again within ten minutes'
           END || coalesce('; ' || error, ''),
       finished_at = clock_timestamp(), lease_until = NULL, claim_token = NULL,
       updated_at = clock_timestamp()
  FROM schedule s
 WHERE f.status IN ('QUEUED', 'RUNNING') AND f.lease_until <= clock_timestamp()
   AND s.id = f.schedule_id
   AND (f.attempts >= %(attempts)s
        OR f.due_at < clock_timestamp() - make_interval(secs => %(window)s))
RETURNING s.name, f.due_at, f.status, f.error

-- name: renew
UPDATE schedule_fire
   SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s),
       updated_at = clock_timestamp()
 WHERE id = %(id)s AND claim_token = %(token)s
RETURNING id

-- name: settle
UPDATE schedule_fire
   SET status = %(status)s, error = %(error)s, run_id = %(run_id)s,
       finished_at = clock_timestamp(), lease_until = NULL, claim_token = NULL,
       updated_at = clock_timestamp()
 WHERE id = %(id)s AND claim_token = %(token)s
RETURNING id

-- name: give_back
-- Whoever comes next takes it over: at once, or after `seconds`. What was refused was no attempt.
UPDATE schedule_fire
   SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s), error = %(error)s,
       attempts = attempts - CASE WHEN %(refused)s THEN 1 ELSE 0 END,
       claim_token = NULL, updated_at = clock_timestamp()
 WHERE id = %(id)s AND claim_token = %(token)s
RETURNING id

-- name: prune
-- Old fires, but never the newest of a schedule: the listing shows it. schedule_fire_old.
WITH old AS (
    SELECT f.id
      FROM schedule_fire f
     WHERE f.due_at < clock_timestamp() - make_interval(days => %(days)s)
       AND f.status NOT IN ('QUEUED', 'RUNNING')
       AND EXISTS (SELECT FROM schedule_fire newer
                    WHERE newer.schedule_id = f.schedule_id AND newer.due_at > f.due_at)
     ORDER BY f.due_at
     LIMIT %(limit)s)
DELETE FROM schedule_fire USING old WHERE schedule_fire.id = old.id
RETURNING schedule_fire.id
