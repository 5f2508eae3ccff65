-- name: failed_runs
-- How many runs of each category failed in a row, ten at most; categories without a run for a week
-- are no longer synced. Walks run_log_category from category to category and then back from its
-- end, so that its cost does not grow with the log.
WITH RECURSIVE category AS (
    (SELECT category_id FROM run_log ORDER BY category_id LIMIT 1)
    UNION ALL
    SELECT (SELECT r.category_id FROM run_log AS r
             WHERE r.category_id > category.category_id ORDER BY r.category_id LIMIT 1)
      FROM category WHERE category.category_id IS NOT NULL
)
SELECT category_id, failed_in_a_row
  FROM category CROSS JOIN LATERAL (
      SELECT count(*) AS runs, count(*) FILTER (WHERE only_failed) AS failed_in_a_row
        FROM (SELECT bool_and(status = 'FAILED') OVER (ORDER BY id DESC) AS only_failed
                FROM (SELECT id, status, started_at FROM run_log AS r
                       WHERE r.category_id = category.category_id AND status <> 'RUNNING'
                       ORDER BY id DESC LIMIT 10) AS last
               WHERE started_at > now() - interval '7 days') AS row
  ) AS run
 WHERE category_id IS NOT NULL AND runs > 0
 ORDER BY category_id
 LIMIT 200
