-- What operators and upkeep do to the outbox.

-- name: chosen
-- Ids that fit, oldest first. By status DEAD or FAILED: outbox_unsent; by time: outbox_created.
SELECT id FROM outbox_messages
 WHERE status = ANY (%(statuses)s::text[])
   AND (%(topic)s::text IS NULL OR topic = %(topic)s)
   AND (%(key)s::text IS NULL OR message_key = %(key)s)
   AND (%(error)s::text IS NULL OR {error_kind} = %(error)s)
   AND created_at >= coalesce(%(since)s::timestamptz, '-infinity')
   AND created_at < coalesce(%(until)s::timestamptz, 'infinity')
 ORDER BY seq LIMIT %(limit)s

-- name: slots_of
SELECT DISTINCT slot FROM outbox_messages WHERE id = ANY (%(ids)s::uuid[])

-- name: replay
-- They come in by the way of what was parked: marks have passed their numbers long ago. What is
-- waiting already is left as it is.
UPDATE outbox_messages
   SET status = 'PENDING', parked = true, next_retry_at = clock_timestamp(), retry_count = 0,
       error_message = NULL, updated_at = clock_timestamp(), version = version + 1
 WHERE id = ANY (%(ids)s::uuid[]) AND status <> 'PENDING'
RETURNING id

-- name: discard
UPDATE outbox_messages
   SET status = 'DISCARDED', parked = false, next_retry_at = NULL,
       updated_at = clock_timestamp(), version = version + 1
 WHERE id = ANY (%(ids)s::uuid[]) AND status IN ('PENDING', 'FAILED', 'DEAD')
RETURNING id, slot, topic::text, message_key

-- name: anything_old
SELECT EXISTS (SELECT FROM outbox_messages
                WHERE created_at < now() - make_interval(secs => %(seconds)s)
                  AND status IN ('SENT', 'DISCARDED')),
       pg_relation_size('outbox_messages') / current_setting('block_size')::int

-- name: prune
-- A stretch of the table at a time, in the order it was written in: that costs the least log, and
-- no index is needed. One process at a time.
DELETE FROM outbox_messages
 WHERE ctid >= ('(' || %(first)s::bigint || ',0)')::tid
   AND ctid < ('(' || %(end)s::bigint || ',0)')::tid
   AND status IN ('SENT', 'DISCARDED')
   AND greatest(created_at, updated_at) < now() - make_interval(secs => %(seconds)s)
   AND (SELECT pg_try_advisory_xact_lock(4210755, 5))
