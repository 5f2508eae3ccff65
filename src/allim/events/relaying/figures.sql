-- Figures of the outbox, read for metrics now and then.

-- name: backlog
-- Needs outbox_ready, outbox_parked and outbox_unsent: unfinished messages only.
SELECT (SELECT count(*) FROM outbox_messages WHERE status = 'PENDING' AND NOT parked)
       + (SELECT count(*) FROM outbox_messages WHERE parked AND status = 'PENDING'),
       (SELECT count(*) FROM outbox_messages WHERE status = 'FAILED'),
       (SELECT count(*) FROM outbox_messages WHERE status = 'DEAD')

-- name: slots
-- Of each slot the age of the first that is ready, and who reads it. Needs outbox_ready.
SELECT slot.slot, slot.relay_id IS NOT NULL,
       coalesce(extract(epoch FROM clock_timestamp() - first.created_at), 0)::float8
  FROM relay_slot AS slot LEFT JOIN LATERAL (
      SELECT created_at FROM outbox_messages AS message
       WHERE message.slot = slot.slot AND message.status = 'PENDING' AND NOT message.parked
       ORDER BY message.seq LIMIT 1) AS first ON true
 ORDER BY slot.slot

-- name: blocked
-- Needs outbox_due.
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(due)), 0)::float8
  FROM (SELECT min(next_retry_at) AS due FROM outbox_messages
         WHERE parked AND (next_retry_at IS NOT NULL OR status = 'DEAD')
         GROUP BY slot, topic, message_key) AS line
