-- How things stand, for the overview: each figure from a partial index of unfinished work, and each
-- count up to `most`. Run with pinned plans.

-- name: deliveries
-- Needs delivery_new, delivery_timed and delivery_parked.
SELECT c.channel,
       (SELECT count(*)::int FROM (
           SELECT FROM delivery WHERE status = 'PENDING' AND next_retry_at IS NULL
              AND channel = c.channel LIMIT %(most)s) AS n)
       + (SELECT count(*)::int FROM (
           SELECT FROM delivery WHERE status IN ('PENDING', 'FAILED') AND next_retry_at IS NOT NULL
              AND channel = c.channel AND next_retry_at <= now() LIMIT %(most)s) AS n),
       (SELECT count(*)::int FROM (
           SELECT FROM delivery WHERE status IN ('PENDING', 'FAILED') AND next_retry_at IS NOT NULL
              AND channel = c.channel AND next_retry_at > now() LIMIT %(most)s) AS n),
       (SELECT count(*)::int FROM (
           SELECT FROM delivery WHERE status = 'DEAD' AND channel = c.channel
            LIMIT %(most)s) AS n),
       (SELECT count(*)::int FROM (
           SELECT FROM delivery WHERE status = 'HELD' AND channel = c.channel
            LIMIT %(most)s) AS n),
       extract(epoch FROM now() - least(
           (SELECT min(first.created_at) FROM generate_series(0, 2) AS p (priority)
             CROSS JOIN LATERAL (
                 SELECT created_at FROM delivery
                  WHERE status = 'PENDING' AND next_retry_at IS NULL AND channel = c.channel
                    AND priority = p.priority ORDER BY id + 0 LIMIT 1) AS first),
           (SELECT next_retry_at FROM delivery
             WHERE status IN ('PENDING', 'FAILED') AND next_retry_at IS NOT NULL
               AND channel = c.channel AND next_retry_at <= now()
             ORDER BY next_retry_at LIMIT 1)))::float8
  FROM unnest(%(channels)s::text[]) WITH ORDINALITY AS c (channel, place)
 ORDER BY c.place

-- name: events
-- Needs outbox_ready, outbox_parked, outbox_unsent and outbox_due.
SELECT (SELECT count(*)::int FROM (
           SELECT FROM outbox_messages WHERE status = 'PENDING' AND NOT parked
            LIMIT %(most)s) AS n),
       (SELECT count(*)::int FROM (SELECT FROM outbox_messages WHERE parked LIMIT %(most)s) AS n),
       (SELECT count(*)::int FROM (
           SELECT FROM outbox_messages WHERE status = 'DEAD' LIMIT %(most)s) AS n),
       (SELECT count(*)::int FROM (
           SELECT DISTINCT slot, topic, message_key FROM (
               SELECT slot, topic, message_key FROM outbox_messages
                WHERE parked AND (next_retry_at IS NOT NULL OR status = 'DEAD')
                  AND message_key IS NOT NULL
                ORDER BY slot, next_retry_at LIMIT %(most)s) AS due) AS n),
       (SELECT count(*)::int FROM relay_slot WHERE relay_id IS NULL),
       (SELECT extract(epoch FROM clock_timestamp() - min(first.created_at))::float8
          FROM relay_slot AS slot CROSS JOIN LATERAL (
              SELECT created_at FROM outbox_messages AS message
               WHERE message.slot = slot.slot AND message.status = 'PENDING' AND NOT message.parked
               ORDER BY message.seq LIMIT 1) AS first)

-- name: troubles
-- Needs alert_open; endpoints are few.
SELECT (SELECT count(*)::int FROM (
           SELECT FROM alert WHERE NOT resolved AND severity = 'high' LIMIT %(most)s) AS n),
       (SELECT count(*)::int FROM (
           SELECT FROM endpoint WHERE disabled_at IS NOT NULL LIMIT %(most)s) AS n),
       EXISTS (SELECT FROM notification), EXISTS (SELECT FROM outbox_messages)

-- name: event_relays
-- Who holds which slots, with the oldest ready event in them. Needs outbox_ready.
WITH slot AS MATERIALIZED (
    SELECT s.slot, s.relay_id, extract(epoch FROM clock_timestamp() - first.created_at)::float8 AS lag
      FROM relay_slot AS s LEFT JOIN LATERAL (
          SELECT created_at FROM outbox_messages AS message
           WHERE message.slot = s.slot AND message.status = 'PENDING' AND NOT message.parked
           ORDER BY message.seq LIMIT 1) AS first ON true)
SELECT r.id, r.lease_until, r.updated_at, r.lease_until > clock_timestamp(),
       coalesce(array_agg(slot.slot::int ORDER BY slot.slot) FILTER (WHERE slot.slot IS NOT NULL),
                '{}'),
       max(slot.lag)
  FROM (SELECT id, lease_until, updated_at FROM relay WHERE NOT retired
        UNION ALL SELECT NULL, NULL, NULL) AS r
  LEFT JOIN slot ON slot.relay_id IS NOT DISTINCT FROM r.id
 GROUP BY r.id, r.lease_until, r.updated_at
 ORDER BY r.id NULLS LAST
