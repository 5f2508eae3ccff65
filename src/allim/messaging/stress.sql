-- name: jobs
-- What became of each job of a run: its notifications, how often it went out, and when.
-- Needs notification_idempotency.
SELECT key, count(DISTINCT n.id), array_agg(d.status) FILTER (WHERE d.superseded_by IS NULL),
       coalesce(sum(sent.times), 0)::int, min(n.created_at), max(d.sent_at)
  FROM unnest(%(keys)s::text[]) AS asked (key)
  LEFT JOIN notification AS n ON n.idempotency_key = asked.key
  LEFT JOIN delivery AS d ON d.notification_id = n.id
  LEFT JOIN LATERAL (
       SELECT count(*) AS times FROM delivery_attempt AS a
        WHERE a.delivery_id = d.id AND a.outcome IN ('DELIVERED', 'ACCEPTED')) AS sent ON true
 GROUP BY key
