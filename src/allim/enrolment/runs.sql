-- name: lock_held
-- Read before anything is locked: whoever finds the lock held keeps out of its holder's way.
SELECT run_id, lock_expires_at
  FROM job_lock
 WHERE job_name = %(job_name)s AND lock_expires_at > clock_timestamp()

-- name: locks
-- All of them: one a category, and released locks are deleted.
SELECT json_build_object(
           'job_name', job_name, 'locked_by', locked_by, 'locked_at', locked_at,
           'lock_expires_at', lock_expires_at, 'run_id', run_id,
           'ran_out', lock_expires_at <= clock_timestamp())
  FROM job_lock
 ORDER BY locked_at

-- name: open_run
INSERT INTO run_log (category_id, trigger_type, worker)
VALUES (%(category_id)s, %(trigger_type)s, %(worker)s)
RETURNING id

-- name: take_lock
-- The lock if it is free or ran out. It changes a key of the row, so it waits for a holder that
-- is between its fence check and its commit; callers set a short lock_timeout.
INSERT INTO job_lock AS l (job_name, locked_by, lock_expires_at, run_id, fence)
VALUES (%(job_name)s, %(locked_by)s, clock_timestamp() + make_interval(secs => %(lease)s),
        %(run_id)s, nextval('job_lock_fence'))
    ON CONFLICT (job_name) DO UPDATE
   SET locked_by = EXCLUDED.locked_by, locked_at = EXCLUDED.locked_at,
       lock_expires_at = EXCLUDED.lock_expires_at, run_id = EXCLUDED.run_id,
       fence = EXCLUDED.fence, updated_at = now()
 WHERE l.lock_expires_at <= clock_timestamp()
RETURNING fence

-- name: bury_runs
-- Runs that were under way when their lock ran out; run by the new holder, so there can be no
-- live one. Guarded by their status: a run that has ended keeps its end.
UPDATE run_log
   SET status = 'FAILED', error_message = %(error)s, finished_at = clock_timestamp(),
       updated_at = clock_timestamp()
 WHERE category_id = %(category_id)s AND status = 'RUNNING' AND id <> %(run_id)s
RETURNING id

-- name: renew_lock
-- Not one that ran out: whoever slept past its lease has lost it, taken over or not.
UPDATE job_lock
   SET lock_expires_at = clock_timestamp() + make_interval(secs => %(lease)s), updated_at = now()
 WHERE job_name = %(job_name)s AND fence = %(fence)s AND lock_expires_at > clock_timestamp()
RETURNING fence

-- name: bound_course
-- A holder that is stopped in the middle of a transaction must not keep what it locked for
-- longer than its lease; local, so that it works through a transaction-mode pooler.
SELECT set_config('idle_in_transaction_session_timeout', %(milliseconds)s, true),
       set_config('lock_timeout', %(milliseconds)s, true)

-- name: bound_take
SELECT set_config('lock_timeout', '2s', true)

-- name: record_course
-- The fence check, the last statement of a course's transaction: FOR KEY SHARE lets renewals
-- pass and makes a takeover wait for the commit. With it the run's counts, so that they are
-- true whatever becomes of the run. No row: the lock is lost.
WITH held AS MATERIALIZED (
    SELECT FROM job_lock
     WHERE job_name = %(job_name)s AND fence = %(fence)s AND lock_expires_at > clock_timestamp()
       FOR KEY SHARE)
UPDATE run_log l
   SET total_records = l.total_records + %(rows)s,
       new_records = l.new_records + %(new)s,
       changed_records = l.changed_records + %(changed)s,
       missing_records = l.missing_records + %(missing)s,
       created_alerts = l.created_alerts + %(alerts)s,
       courses_processed = l.courses_processed + %(courses)s,
       details_processed = l.details_processed + %(details)s,
       source_records_upserted = l.source_records_upserted + %(rows)s + %(details)s,
       truncated_courses = l.truncated_courses + %(truncated)s,
       updated_at = now()
  FROM held
 WHERE l.id = %(run_id)s AND l.status = 'RUNNING'
RETURNING l.id

-- name: release_lock
-- Before the run is touched: locks are taken in the order job_lock, run_log, alert.
DELETE FROM job_lock
 WHERE job_name = %(job_name)s AND fence = %(fence)s
RETURNING lock_expires_at > clock_timestamp()

-- name: lock_run
SELECT id FROM run_log WHERE id = %(run_id)s AND status = 'RUNNING' FOR NO KEY UPDATE

-- name: close_run
UPDATE run_log
   SET status = %(status)s, error_message = %(error)s, finished_at = clock_timestamp(),
       categories_processed = %(categories)s, failed_courses = %(failed_courses)s,
       failed_details = %(failed_details)s, created_alerts = created_alerts + %(alerts)s,
       updated_at = clock_timestamp()
 WHERE id = %(run_id)s AND status = 'RUNNING'

-- name: ever_succeeded
SELECT EXISTS (SELECT FROM run_log WHERE category_id = %(category_id)s AND status = 'SUCCESS')

-- name: queue_failures
-- One at a time says that a category fails in one way, so that repeats are counted in one alert.
SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 0))

-- name: count_failure
-- The alert that is open already, within the cooldown.
UPDATE alert
   SET occurrences = occurrences + 1, updated_at = now()
 WHERE id = (SELECT a.id FROM alert a
              WHERE a.category_id = %(category_id)s AND a.error_group = %(error_group)s
                AND a.alert_type = 'FAILED' AND NOT a.resolved
                AND a.created_at > clock_timestamp() - make_interval(secs => %(cooldown)s)
              ORDER BY a.id DESC LIMIT 1)
RETURNING id

-- name: resolve_failures
UPDATE alert
   SET resolved = true, resolved_at = now(), resolved_by = %(by)s, updated_at = now()
 WHERE category_id = %(category_id)s AND alert_type = 'FAILED' AND NOT resolved

-- name: run_json
-- A fragment: one run `l` as JSON.
json_build_object(
    'id', l.id, 'category_id', l.category_id, 'trigger_type', l.trigger_type, 'status', l.status,
    'total_records', l.total_records, 'changed_records', l.changed_records,
    'created_alerts', l.created_alerts, 'error_message', l.error_message,
    'started_at', l.started_at, 'finished_at', l.finished_at, 'updated_at', l.updated_at,
    'summary', json_build_object(
        'categories_processed', l.categories_processed, 'courses_processed', l.courses_processed,
        'status_rows_processed', l.total_records, 'details_processed', l.details_processed,
        'source_records_upserted', l.source_records_upserted, 'new_records', l.new_records,
        'changed_records', l.changed_records, 'created_alerts', l.created_alerts,
        'failed_courses', l.failed_courses, 'failed_details', l.failed_details,
        'truncated_courses', l.truncated_courses, 'missing_records', l.missing_records))

-- name: one_run
SELECT {run} FROM run_log l WHERE l.id = %(id)s

-- name: runs
-- Backwards over the primary key, or over run_log_category, run_log_failed where asked so.
SELECT {run}
  FROM run_log l
 WHERE (CAST(%(before)s AS bigint) IS NULL OR l.id < %(before)s) {filters}
 ORDER BY l.id DESC
 LIMIT %(limit)s

-- name: run_status
AND l.status = %(status)s
-- name: run_trigger_type
AND l.trigger_type = %(trigger_type)s
-- name: run_category_id
AND l.category_id = %(category_id)s
-- name: run_since
AND l.started_at >= %(since)s
-- name: run_until
AND l.started_at < %(until)s

-- name: runs_succeeded
-- By the index run_log_succeeded.
SELECT count(*) FROM run_log WHERE category_id = %(category_id)s AND status = 'SUCCESS'
