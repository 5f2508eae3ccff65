-- What waits for an operator, in groups of one state, channel and error.

-- name: groups
-- The groups themselves by leaps from one to the next; then each is counted up to `most`, and its
-- oldest and newest looked up. Needs delivery_dead for all of it: what it costs depends on how many
-- groups there are, not on how many dead letters.
WITH RECURSIVE leap AS (
    (SELECT d.status, d.channel, coalesce(d.error_code, '') AS code
       FROM delivery d
      WHERE d.status IN ('DEAD', 'HELD') AND d.superseded_by IS NULL
      ORDER BY d.status, d.channel, coalesce(d.error_code, '')
      LIMIT 1)
    UNION ALL
    SELECT following.* FROM leap CROSS JOIN LATERAL (
        SELECT d.status, d.channel, coalesce(d.error_code, '')
          FROM delivery d
         WHERE d.status IN ('DEAD', 'HELD') AND d.superseded_by IS NULL
           AND (d.status, d.channel, coalesce(d.error_code, ''))
               > (leap.status, leap.channel, leap.code)
         ORDER BY d.status, d.channel, coalesce(d.error_code, '')
         LIMIT 1) following),
found AS MATERIALIZED (SELECT * FROM leap LIMIT %(groups)s)
SELECT found.status, found.channel, nullif(found.code, ''), counted.count,
       oldest.created_at, newest.created_at, left(newest.last_error, 300)
  FROM found
 CROSS JOIN LATERAL (
       SELECT count(*)::int FROM (
           SELECT FROM delivery d
            WHERE d.status = found.status AND d.channel = found.channel
              AND coalesce(d.error_code, '') = found.code
              AND d.status IN ('DEAD', 'HELD') AND d.superseded_by IS NULL
            LIMIT %(most)s) members) counted
 CROSS JOIN LATERAL (
       SELECT d.created_at FROM delivery d
        WHERE d.status = found.status AND d.channel = found.channel
          AND coalesce(d.error_code, '') = found.code
          AND d.status IN ('DEAD', 'HELD') AND d.superseded_by IS NULL
        ORDER BY d.id LIMIT 1) oldest
 CROSS JOIN LATERAL (
       SELECT d.created_at, d.last_error FROM delivery d
        WHERE d.status = found.status AND d.channel = found.channel
          AND coalesce(d.error_code, '') = found.code
          AND d.status IN ('DEAD', 'HELD') AND d.superseded_by IS NULL
        ORDER BY d.id DESC LIMIT 1) newest
 ORDER BY counted.count DESC, found.channel, found.code, found.status

-- name: members
-- The rows of one group, newest first. Needs delivery_dead.
SELECT d.id, d.notification_id, d.recipient, n.source, n.type, n.title, d.retry_count,
       left(d.last_error, 300), d.created_at, d.updated_at, d.tenant_id
  FROM delivery d JOIN notification n ON n.id = d.notification_id
 WHERE d.status = %(status)s AND d.channel = %(channel)s
   AND coalesce(d.error_code, '') = %(code)s
   AND d.status IN ('DEAD', 'HELD') AND d.superseded_by IS NULL
   AND (CAST(%(before)s AS bigint) IS NULL OR d.id < %(before)s)
 ORDER BY d.id DESC LIMIT %(limit)s

-- name: next
-- What a discard takes next, lowest ids first. `fitting` stands in replays.sql.
SELECT d.id, d.notification_id FROM delivery d
 WHERE d.status = ANY (%(statuses)s)
   AND (CAST(%(channel)s AS text) IS NULL OR d.channel = %(channel)s)
   AND (NOT %(codeless)s OR d.error_code IS NULL)
   AND d.id > %(after)s AND d.id <= %(up_to)s AND {fitting}
 ORDER BY d.id LIMIT %(limit)s

-- name: discard
-- What changed meanwhile is left as it is; the notifications are locked already.
WITH ready AS MATERIALIZED (
    SELECT d.id FROM delivery d
     WHERE d.id = ANY (%(ids)s) AND d.status = ANY (%(statuses)s) AND d.superseded_by IS NULL
     ORDER BY d.id
       FOR NO KEY UPDATE)
UPDATE delivery d
   SET status = 'CANCELED', next_retry_at = NULL, error_code = 'discarded',
       last_error = %(reason)s, updated_at = now()
  FROM ready WHERE d.id = ready.id
RETURNING d.id
