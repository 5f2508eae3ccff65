-- name: reserve
-- Take places in one target's line: as many as begin within the horizon. Primary key only;
-- the row lock makes relays take turns.
WITH line AS MATERIALIZED (
    SELECT key, greatest(next_free,
                         clock_timestamp() - (%(burst)s - 1) * %(interval)s * interval '1 second')
                AS first
      FROM rate_limit WHERE key = %(key)s FOR UPDATE
), taken AS MATERIALIZED (
    SELECT key, first, least(%(count)s, greatest(0, 1 + floor(
               (%(horizon)s - extract(epoch FROM first - clock_timestamp())) / %(interval)s)))::int
               AS places
      FROM line
)
UPDATE rate_limit AS r
   SET next_free = taken.first + taken.places * %(interval)s * interval '1 second', updated_at = now()
  FROM taken WHERE r.key = taken.key
RETURNING extract(epoch FROM taken.first - clock_timestamp())::float8, taken.places

-- name: begin_line
INSERT INTO rate_limit (key, next_free) VALUES (%(key)s, '-infinity') ON CONFLICT DO NOTHING

-- name: forget_idle_lines
-- Lines of targets that nobody calls any more; not the one begun this moment. Whoever is at a
-- line keeps it.
DELETE FROM rate_limit WHERE key IN (
    SELECT key FROM rate_limit
     WHERE next_free < now() - interval '1 day' AND updated_at < now() - interval '1 day'
     LIMIT 1000 FOR UPDATE SKIP LOCKED)
