-- What relays did, minute by minute, and which of them are alive.

-- name: write
-- A worker's own rows, each whole: written twice it counts once. Answers the database's time.
WITH written AS (
    INSERT INTO metric_rollup (span, starts_at, box, channel, worker, delivered, retried, dead,
                               skipped, put_off, calls, call_seconds, slowest)
    SELECT 'minute', to_timestamp(r.minute), r.box, r.channel, %(worker)s, r.delivered, r.retried,
           r.dead, r.skipped, r.put_off, r.calls, r.call_seconds, r.slowest
      FROM unnest(%(minute)s::float8[], %(box)s::text[], %(channel)s::text[],
                  %(delivered)s::bigint[], %(retried)s::bigint[], %(dead)s::bigint[],
                  %(skipped)s::bigint[], %(put_off)s::bigint[], %(calls)s::bigint[],
                  %(call_seconds)s::float8[], %(slowest)s::float8[])
           AS r (minute, box, channel, delivered, retried, dead, skipped, put_off, calls,
                 call_seconds, slowest)
        ON CONFLICT (span, starts_at, box, channel, worker) DO UPDATE
       SET delivered = excluded.delivered, retried = excluded.retried, dead = excluded.dead,
           skipped = excluded.skipped, put_off = excluded.put_off, calls = excluded.calls,
           call_seconds = excluded.call_seconds, slowest = excluded.slowest, updated_at = now())
SELECT extract(epoch FROM clock_timestamp())::float8

-- name: beat
INSERT INTO relay_beat AS b (worker, lanes, slots, breakers, updated_at)
VALUES (%(worker)s, %(lanes)s, %(slots)s, %(breakers)s, clock_timestamp())
    ON CONFLICT (worker) DO UPDATE
   SET lanes = excluded.lanes, slots = excluded.slots, breakers = excluded.breakers,
       updated_at = excluded.updated_at
RETURNING extract(epoch FROM updated_at)::float8

-- name: leave
DELETE FROM relay_beat WHERE worker = %(worker)s RETURNING worker

-- name: count_deliveries
-- What came into the box up to the number that had been drawn half a minute ago, in steps: walks
-- the primary key from where the last step ended. One process at a time; the mark moves with the
-- count, so nothing is counted twice.
WITH drawn AS MATERIALIZED (
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS last_value FROM delivery_id_seq
), mark AS MATERIALIZED (
    SELECT last_id, next_id, least(next_id, last_id + %(most)s) AS stop FROM metric_mark
     WHERE box = 'delivery' AND next_at < clock_timestamp() - make_interval(secs => %(settle)s)
       FOR NO KEY UPDATE SKIP LOCKED
), counted AS (
    SELECT date_trunc('minute', d.created_at, 'UTC') AS minute, d.channel, count(*) AS created
      FROM mark CROSS JOIN LATERAL (
          SELECT created_at, channel FROM delivery WHERE id > mark.last_id AND id <= mark.stop) AS d
     GROUP BY 1, 2
), moved AS (
    UPDATE metric_mark AS m
       SET last_id = mark.stop, updated_at = now(),
           next_id = CASE WHEN mark.stop < mark.next_id THEN m.next_id
                          ELSE greatest(drawn.last_value, m.next_id) END,
           next_at = CASE WHEN mark.stop < mark.next_id THEN m.next_at ELSE clock_timestamp() END
      FROM mark, drawn WHERE m.box = 'delivery'
)
INSERT INTO metric_rollup AS r (span, starts_at, box, channel, worker, created)
SELECT 'minute', minute, 'delivery', channel, '', created FROM counted
    ON CONFLICT (span, starts_at, box, channel, worker) DO UPDATE
   SET created = r.created + excluded.created, updated_at = now()
RETURNING r.created

-- name: count_events
-- Numbers drawn: no index leads from a number to its event, and none is worth having for this. So
-- transactions that were rolled back count too, and topics are not told apart. What came between
-- two looks is spread evenly over the minutes between them, a day at most.
WITH drawn AS MATERIALIZED (
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS last_value FROM outbox_seq
), mark AS MATERIALIZED (
    SELECT next_at, clock_timestamp() AS looked_at FROM metric_mark
     WHERE box = 'outbox' AND next_at < clock_timestamp() - make_interval(secs => %(settle)s)
       FOR NO KEY UPDATE SKIP LOCKED
), moved AS (
    UPDATE metric_mark AS m
       SET last_id = m.next_id, next_id = greatest(drawn.last_value, m.next_id),
           next_at = mark.looked_at, updated_at = now()
      FROM mark, drawn WHERE m.box = 'outbox'
    RETURNING m.next_id - m.last_id AS created,
              greatest(mark.next_at, mark.looked_at - interval '1 day') AS began,
              mark.looked_at AS ended
), spread AS (
    SELECT minute,
           floor(created * least((extract(epoch FROM minute) + 60 - began) / span, 1))
           - floor(created * greatest((extract(epoch FROM minute) - began) / span, 0)) AS created
      FROM (SELECT created, extract(epoch FROM began) AS began,
                   greatest(extract(epoch FROM ended - began), 0.000001) AS span,
                   began AS first, ended AS last FROM moved) AS m
     CROSS JOIN LATERAL generate_series(date_trunc('minute', first, 'UTC'), last,
                                        interval '1 minute') AS minute
)
INSERT INTO metric_rollup AS r (span, starts_at, box, channel, worker, created)
SELECT 'minute', minute, 'outbox', '', '', created FROM spread WHERE created > 0
    ON CONFLICT (span, starts_at, box, channel, worker) DO UPDATE
   SET created = r.created + excluded.created, updated_at = now()
RETURNING r.created

-- name: compact
-- Minutes of a day ago become hours, all workers in one row. Needs the primary key.
WITH old AS (
    DELETE FROM metric_rollup
     WHERE span = 'minute'
       AND starts_at < date_trunc('hour', now() - make_interval(secs => %(minutes)s), 'UTC')
    RETURNING *
)
INSERT INTO metric_rollup AS r (span, starts_at, box, channel, worker, created, delivered, retried,
                                dead, skipped, put_off, calls, call_seconds, slowest)
SELECT 'hour', date_trunc('hour', starts_at, 'UTC') AS hour, box, channel, '', sum(created),
       sum(delivered), sum(retried), sum(dead), sum(skipped), sum(put_off), sum(calls),
       sum(call_seconds), max(slowest)
  FROM old GROUP BY hour, box, channel
    ON CONFLICT (span, starts_at, box, channel, worker) DO UPDATE
   SET created = r.created + excluded.created, delivered = r.delivered + excluded.delivered,
       retried = r.retried + excluded.retried, dead = r.dead + excluded.dead,
       skipped = r.skipped + excluded.skipped, put_off = r.put_off + excluded.put_off,
       calls = r.calls + excluded.calls, call_seconds = r.call_seconds + excluded.call_seconds,
       slowest = greatest(r.slowest, excluded.slowest), updated_at = now()

-- name: prune
DELETE FROM metric_rollup
 WHERE span = 'hour' AND starts_at < now() - make_interval(secs => %(hours)s)

-- name: forget_beats
DELETE FROM relay_beat WHERE updated_at < now() - make_interval(secs => %(seconds)s)

-- name: may_keep
SELECT pg_try_advisory_xact_lock(4210755, 16)

-- name: series
-- Steps of `step` seconds since `since`; what is not there was nothing. Needs the primary key.
SELECT extract(epoch FROM date_bin(make_interval(secs => %(step)s), starts_at,
                                   timestamptz 'epoch'))::bigint AS at,
       box, channel, sum(created)::bigint, sum(delivered)::bigint, sum(retried)::bigint,
       sum(dead)::bigint, sum(calls)::bigint, sum(call_seconds)::float8, max(slowest)::float8
  FROM metric_rollup
 WHERE span = ANY (%(spans)s) AND starts_at >= to_timestamp(%(since)s)
 GROUP BY 1, box, channel

-- name: beats
SELECT worker, lanes, slots, breakers, created_at, updated_at,
       updated_at > clock_timestamp() - make_interval(secs => %(alive)s)
  FROM relay_beat ORDER BY created_at, worker LIMIT %(limit)s

-- name: clock
SELECT extract(epoch FROM clock_timestamp())::float8
