-- name: alert_json
-- A fragment: one alert `a` as JSON.
json_build_object(
    'id', a.id, 'run_id', a.run_id, 'alert_type', a.alert_type, 'severity', a.severity,
    'source_type', a.source_type, 'source_id', a.source_id, 'category_id', a.category_id,
    'course_id', a.course_id, 'user_id', a.user_id, 'revision', a.revision, 'title', a.title,
    'message', a.message, 'old', a.old, 'new', a.new, 'occurrences', a.occurrences,
    'notification_id', a.notification_id, 'resolved', a.resolved, 'resolved_at', a.resolved_at,
    'resolved_by', a.resolved_by, 'created_at', a.created_at, 'updated_at', a.updated_at)

-- name: one_alert
SELECT {alert} FROM alert a WHERE a.id = %(id)s

-- name: alerts
-- Backwards over the primary key, or over alert_category, alert_open, alert_failed where asked so.
SELECT {alert}
  FROM alert a
 WHERE (CAST(%(before)s AS bigint) IS NULL OR a.id < %(before)s) {filters}
 ORDER BY a.id DESC
 LIMIT %(limit)s

-- name: alert_alert_type
AND a.alert_type = %(alert_type)s
-- name: alert_is_failed
-- Said as the partial index says it.
AND a.alert_type = 'FAILED'
-- name: alert_severity
AND a.severity = %(severity)s
-- name: alert_category_id
AND a.category_id = %(category_id)s
-- name: alert_run_id
-- By alert_created: all that a run told, it told between its beginning and its end.
AND a.run_id = %(run_id)s
AND a.created_at >= (SELECT started_at FROM run_log WHERE id = %(run_id)s)
AND a.created_at <= (SELECT coalesce(finished_at, 'infinity') FROM run_log WHERE id = %(run_id)s)
-- name: alert_is_open
AND NOT a.resolved
-- name: alert_is_resolved
AND a.resolved
-- name: alert_since
AND a.created_at >= %(since)s
-- name: alert_until
AND a.created_at < %(until)s

-- name: resolve
UPDATE alert a
   SET resolved = true, resolved_at = coalesce(a.resolved_at, now()),
       resolved_by = CASE WHEN a.resolved THEN a.resolved_by ELSE %(by)s END,
       updated_at = CASE WHEN a.resolved THEN a.updated_at ELSE now() END
 WHERE a.id = %(id)s
RETURNING {alert}
