-- name: news
-- Which of these alerts are news, remembered as told. One statement, so that two senders of the
-- same alert (a pair of Alertmanagers) cannot both be the first: the second waits for the first's
-- row and then finds nothing changed. Sorted, so that they wait in one direction only. A repeat
-- writes nothing. By the unique index on (fingerprint, source, scope, tenant_id).
--
-- News is another status, or a later start of the same one (the end between was never told).
-- An earlier start is the same alert: Alertmanager merges those of two Prometheus into the
-- earlier. A return to firing is news whatever its start: Prometheus keeps the start of an alert
-- over its own restart, and a real change must not be swallowed.
INSERT INTO ingest_alert AS known (tenant_id, source, scope, fingerprint, status, starts_at, told_at)
SELECT CAST(%(tenant)s AS bigint), %(source)s, %(scope)s, a.fingerprint, a.status, a.starts_at,
       clock_timestamp()
  FROM json_to_recordset(CAST(%(alerts)s AS json)) AS a (
           fingerprint text, status text, starts_at timestamptz)
 ORDER BY a.fingerprint
    ON CONFLICT (fingerprint, source, scope, tenant_id) DO UPDATE
   SET status = excluded.status,
       starts_at = CASE WHEN known.status = excluded.status
                        THEN greatest(known.starts_at, excluded.starts_at)
                        ELSE excluded.starts_at END,
       told_at = excluded.told_at,
       times_told = CASE WHEN known.status = excluded.status
                              AND known.starts_at >= excluded.starts_at
                         THEN known.times_told + 1 ELSE 1 END,
       updated_at = now()
 WHERE known.status <> excluded.status
    OR known.starts_at < excluded.starts_at
    OR (known.status = 'firing' AND %(remind)s > 0
        AND known.told_at <= clock_timestamp() - make_interval(secs => %(remind)s))
RETURNING fingerprint, times_told

-- name: forget
-- A few that were told long ago, with each group that has news, so that nothing else need clean
-- up. One that fires longer than that unchanged and without reminders is told once more then.
-- By ingest_alert_told.
DELETE FROM ingest_alert
 WHERE id IN (SELECT id FROM ingest_alert
               WHERE told_at < clock_timestamp() - interval '90 days'
               ORDER BY told_at LIMIT 200 FOR UPDATE SKIP LOCKED)
