-- name: event_columns
-- What is shown of an event.
id, topic, message_key, status, parked, retry_count, headers, content_type, encryption_key,
octet_length(payload), created_at, updated_at, last_attempt_time,
next_retry_at, error_message

-- name: one_event
SELECT {columns}, payload FROM outbox_messages WHERE id = %(id)s

-- name: events
-- Newest first by id, in steps of `scan` rows along the primary key, so that what is rare or not
-- there does not make one request read the whole table. The first row tells how far this looked.
WITH looked_at AS MATERIALIZED (
    SELECT {columns} FROM outbox_messages
     WHERE CAST(%(before)s AS uuid) IS NULL OR id < %(before)s
     ORDER BY id DESC LIMIT %(scan)s)
(SELECT count(*)::int, (SELECT id FROM looked_at ORDER BY id LIMIT 1), {no_columns} FROM looked_at)
UNION ALL
(SELECT NULL, NULL, * FROM looked_at WHERE {filters} ORDER BY id DESC LIMIT %(limit)s)

-- name: no_columns
NULL::uuid, NULL::text, NULL::text, NULL::text, NULL::boolean, NULL::int, NULL::jsonb, NULL::text,
NULL::text, NULL::int, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz,
NULL::text

-- name: failed_events
-- What failed is found by outbox_unsent, however long ago it was.
SELECT {columns} FROM outbox_messages
 WHERE status IN ('FAILED', 'DEAD') AND (CAST(%(before)s AS uuid) IS NULL OR id < %(before)s)
   AND {filters}
 ORDER BY id DESC LIMIT %(limit)s

-- name: status
status = ANY (%(status)s)

-- name: topic
topic = %(topic)s

-- name: key
message_key = %(key)s

-- name: error
{error_kind} = %(error)s

-- name: since
created_at >= %(since)s

-- name: until
created_at < %(until)s

-- name: blocked_keys
-- Keys that wait behind a message that failed: each with its head, and how many wait (counted up
-- to `most`). Needs outbox_due for the keys and outbox_parked for the rest.
WITH line AS MATERIALIZED (
    SELECT DISTINCT slot, topic, message_key FROM outbox_messages
     WHERE parked AND (next_retry_at IS NOT NULL OR status = 'DEAD')
       AND message_key IS NOT NULL
       AND (CAST(%(topic)s AS text) IS NULL OR topic = %(topic)s)
       AND (CAST(%(after_topic)s AS text) IS NULL
            OR (topic, message_key) > (%(after_topic)s, %(after_key)s))
     ORDER BY topic, message_key LIMIT %(limit)s)
SELECT line.topic, line.message_key, head.id, head.status, head.retry_count, head.error_message,
       head.created_at, head.next_retry_at,
       (SELECT count(*)::int FROM (
           SELECT FROM outbox_messages waits
            WHERE waits.slot = line.slot AND waits.topic = line.topic AND waits.parked
              AND waits.message_key = line.message_key AND waits.seq > head.seq
            LIMIT %(most)s) AS counted)
  FROM line
 CROSS JOIN LATERAL (
     SELECT * FROM outbox_messages message
      WHERE message.slot = line.slot AND message.topic = line.topic AND message.parked
        AND message.message_key = line.message_key
      ORDER BY message.seq LIMIT 1) AS head
 ORDER BY line.topic, line.message_key
