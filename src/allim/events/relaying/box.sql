-- Statements of the ordered box: what relays run against `outbox_messages`.

-- name: register
INSERT INTO relay (id, lease_until)
VALUES (%(relay)s, clock_timestamp() + make_interval(secs => %(lease)s))

-- name: forget_retired
-- Incarnations that ended a day ago. Their slots were freed when they were retired.
DELETE FROM relay WHERE retired AND fenced AND updated_at < now() - interval '1 day'

-- name: beat
-- No row back: the lease is lost. Never revives one that ran out: who waited for that may be
-- about to take over.
UPDATE relay SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s),
       updated_at = clock_timestamp()
 WHERE id = %(relay)s AND NOT retired AND lease_until > clock_timestamp()
RETURNING id

-- name: retire
-- FOR UPDATE waits for a settle of ours that was given up while it was being committed: whoever
-- takes the slots must see what it parked.
WITH mine AS MATERIALIZED (SELECT id FROM relay WHERE id = %(relay)s FOR UPDATE),
me AS (UPDATE relay SET retired = true, fenced = fenced OR %(clean)s, updated_at = now()
         FROM mine WHERE relay.id = mine.id RETURNING relay.id)
UPDATE relay_slot SET relay_id = NULL, updated_at = now() FROM me WHERE relay_id = me.id

-- name: retire_dead
-- FOR UPDATE waits for settles, which hold the row FOR KEY SHARE; who is settling now is skipped
-- and retired the next time. A beat passes by a settle: it takes FOR NO KEY UPDATE.
WITH dead AS (
    SELECT id FROM relay WHERE NOT retired AND lease_until < clock_timestamp()
       FOR UPDATE SKIP LOCKED
), retired AS (
    UPDATE relay SET retired = true, updated_at = clock_timestamp()
      FROM dead WHERE relay.id = dead.id RETURNING relay.id)
UPDATE relay_slot SET relay_id = NULL, updated_at = clock_timestamp()
  FROM retired WHERE relay_id = retired.id
RETURNING slot

-- name: share
-- Whether the lease holds, how many slots are ours, and how many there are for each.
SELECT EXISTS (SELECT FROM relay
                WHERE id = %(relay)s AND NOT retired AND lease_until > clock_timestamp()),
       (SELECT count(*) FROM relay_slot WHERE relay_id = %(relay)s)::int,
       (SELECT count(*) FROM relay_slot)::int,
       (SELECT count(*) FROM relay WHERE NOT retired AND lease_until > clock_timestamp())::int,
       EXISTS (SELECT FROM relay_slot WHERE relay_id IS NULL),
       EXISTS (SELECT FROM relay WHERE NOT retired AND lease_until < clock_timestamp())

-- name: take_slots
-- Locks its own row: who is being retired gets none.
WITH me AS MATERIALIZED (
    SELECT id FROM relay
     WHERE id = %(relay)s AND NOT retired AND lease_until > clock_timestamp() FOR KEY SHARE
), free AS MATERIALIZED (
    SELECT slot FROM relay_slot WHERE relay_id IS NULL AND EXISTS (SELECT FROM me)
     ORDER BY slot LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED)
UPDATE relay_slot SET relay_id = me.id, updated_at = clock_timestamp()
  FROM free, me WHERE relay_slot.slot = free.slot
RETURNING relay_slot.slot

-- name: held
-- Read after slots were taken, and so with every incarnation that they were freed from.
SELECT ARRAY(SELECT slot FROM relay_slot WHERE relay_id = %(relay)s),
       ARRAY(SELECT id FROM relay WHERE retired AND NOT fenced)

-- name: fenced
UPDATE relay SET fenced = true, updated_at = now()
 WHERE id = ANY (%(relays)s::text[]) AND retired AND NOT fenced

-- name: release
UPDATE relay_slot SET relay_id = NULL, updated_at = clock_timestamp()
 WHERE relay_id = %(relay)s AND slot = ANY (%(slots)s::smallint[])

-- name: fetch
-- One statement, and so one snapshot for what is read and for what could not be seen yet; that
-- stands in the row of slot -1. Needs outbox_ready, walked for each slot from its mark. What is
-- in progress: the snapshot's list, and those between its end (the latest that *completed*)
-- and the next transaction id to be given out.
SELECT -1::smallint AS slot, age(pg_snapshot_xmax(pg_current_snapshot())::xid)::bigint AS seq,
       NULL::text AS id, pg_current_snapshot()::text AS topic, NULL::text AS message_key,
       NULL::bytea AS payload, NULL::jsonb AS headers, NULL::text AS content_type,
       NULL::text AS encryption_key, NULL::float8 AS created_at, NULL::int AS retry_count,
       NULL::bigint AS version
UNION ALL
(SELECT ready.*
   FROM unnest(%(slots)s::smallint[], %(marks)s::bigint[]) AS asked (slot, mark)
  CROSS JOIN LATERAL (
      SELECT slot, seq, id::text, topic::text, message_key, payload, headers, content_type,
             encryption_key, extract(epoch FROM created_at)::float8, retry_count, version
        FROM outbox_messages AS message
       WHERE message.slot = asked.slot AND message.seq > asked.mark
         AND message.status = 'PENDING' AND NOT message.parked
       ORDER BY message.seq LIMIT %(each)s::int) AS ready
  LIMIT %(limit)s::int)

-- name: blocked
-- Every line with parked messages has one with a due time, or a dead one. Needs outbox_due; asked
-- for in its order, since outbox_parked would walk over all the followers.
WITH head AS MATERIALIZED (
    SELECT found.*
      FROM unnest(%(slots)s::smallint[]) AS asked (slot)
     CROSS JOIN LATERAL (
         SELECT slot, topic, message_key FROM outbox_messages AS message
          WHERE message.slot = asked.slot AND message.parked
            AND (message.next_retry_at IS NOT NULL OR message.status = 'DEAD')
          ORDER BY message.next_retry_at LIMIT 10000000) AS found)
SELECT DISTINCT slot, topic::text, message_key FROM head WHERE message_key IS NOT NULL

-- name: due
-- Lines that are due, and of each its messages from the head on; `waits` says where one is not
-- due (a later retry of its own, or until an operator's word), and its line ends there. A
-- message without a key is a line of its own. Of a line whose head has failed before only that, so
-- that the limit is not spent on its followers. Needs outbox_due, then outbox_parked. now(), since
-- a volatile function is no index condition.
WITH due AS MATERIALIZED (
    SELECT DISTINCT slot, topic, message_key, CASE WHEN message_key IS NULL THEN seq END AS seq
      FROM (SELECT found.*
              FROM unnest(%(slots)s::smallint[]) AS asked (slot)
             CROSS JOIN LATERAL (
                 SELECT slot, topic, message_key, seq FROM outbox_messages AS message
                  WHERE message.slot = asked.slot AND message.parked
                    AND (message.next_retry_at IS NOT NULL OR message.status = 'DEAD')
                    AND message.next_retry_at <= now()
                    AND message.topic <> ALL (%(without)s::text[])
                  ORDER BY message.next_retry_at LIMIT %(limit)s::int) AS found
             LIMIT %(limit)s::int) AS candidate)
SELECT line.slot, line.seq, line.id, line.topic, line.message_key, line.payload, line.headers,
       line.content_type, line.encryption_key, line.created_at, line.retry_count, line.version,
       line.waits
  FROM due
 CROSS JOIN LATERAL (
     SELECT message.retry_count > 0 OR message.status = 'DEAD' AS alone
       FROM outbox_messages AS message
      WHERE message.slot = due.slot AND message.topic = due.topic AND message.parked
        AND (message.message_key = due.message_key
             OR (due.message_key IS NULL AND message.message_key IS NULL
                 AND message.seq = due.seq))
      ORDER BY message.seq LIMIT 1) AS head
 CROSS JOIN LATERAL (
     SELECT message.slot, message.seq, message.id::text, message.topic::text,
            message.message_key, message.payload, message.headers, message.content_type,
            message.encryption_key, extract(epoch FROM message.created_at)::float8 AS created_at,
            message.retry_count, message.version,
            message.status = 'DEAD' OR coalesce(message.next_retry_at > now(), false) AS waits
       FROM outbox_messages AS message
      WHERE message.slot = due.slot AND message.topic = due.topic AND message.parked
        AND (message.message_key = due.message_key
             OR (due.message_key IS NULL AND message.message_key IS NULL
                 AND message.seq = due.seq))
      ORDER BY message.seq LIMIT CASE WHEN head.alone THEN 1 ELSE %(limit)s::int END) AS line
 LIMIT %(limit)s::int

-- name: settle_sent
-- The plain case. No row back from the fence: the lease is lost, and nothing was written.
WITH fence AS MATERIALIZED (
    SELECT id FROM relay
     WHERE id = %(relay)s AND NOT retired AND lease_until > clock_timestamp() FOR KEY SHARE
), sent AS (
    UPDATE outbox_messages AS message
       SET status = 'SENT', updated_at = now(), last_attempt_time = now(), version = version + 1
      FROM fence, unnest(%(slots)s::smallint[], %(seqs)s::bigint[]) AS done (slot, seq)
     WHERE message.slot = done.slot AND message.seq = done.seq
       AND message.status = 'PENDING' AND NOT message.parked)
SELECT count(*) FROM fence

-- name: fence
SELECT id FROM relay
 WHERE id = %(relay)s AND NOT retired AND lease_until > clock_timestamp() FOR KEY SHARE

-- name: lock_slots
-- Against an operator's discard or replay: who parks and who takes a head away must see each other.
SELECT FROM relay_slot WHERE slot = ANY (%(slots)s::smallint[]) ORDER BY slot FOR NO KEY UPDATE

-- name: settle_each
-- What became of single messages. The version lets a settle that is repeated change nothing. The
-- delay is null where it is never due again by itself; what fails stays parked unless it is
-- dead and out of the way. Primary key.
UPDATE outbox_messages AS message
   SET status = told.status, parked = told.parked, updated_at = clock_timestamp(),
       last_attempt_time = clock_timestamp(), version = message.version + 1,
       retry_count = message.retry_count + told.spent,
       error_message = coalesce(told.error, message.error_message),
       next_retry_at = CASE WHEN told.parked
                            THEN clock_timestamp() + make_interval(secs => told.delay) END
  FROM unnest(%(ids)s::uuid[], %(versions)s::bigint[], %(statuses)s::text[], %(parks)s::boolean[],
              %(spends)s::int[], %(delays)s::float8[], %(errors)s::text[])
       AS told (id, version, status, parked, spent, delay, error)
 WHERE message.id = told.id AND message.version = told.version
   AND message.status IN ('PENDING', 'FAILED')

-- name: park
-- Followers of a blocked line.
UPDATE outbox_messages AS message SET parked = true, updated_at = clock_timestamp()
  FROM unnest(%(slots)s::smallint[], %(seqs)s::bigint[]) AS waits (slot, seq)
 WHERE message.slot = waits.slot AND message.seq = waits.seq
   AND message.status = 'PENDING' AND NOT message.parked

-- name: mark_heads
-- Sees to it that every line with parked messages has a due time: where its head has none, the one
-- before it is out of the way, and it is due now. Answers each line and when it is
-- due: no row where nothing is parked any more, null where an operator must say so.
WITH line AS MATERIALIZED (
    SELECT DISTINCT * FROM unnest(%(slots)s::smallint[], %(topics)s::text[], %(keys)s::text[])
        AS l (slot, topic, key)
), head AS MATERIALIZED (
    SELECT line.slot, line.topic, line.key, first.id, first.status, first.next_retry_at
      FROM line CROSS JOIN LATERAL (
          SELECT id, status, next_retry_at FROM outbox_messages AS message
           WHERE message.slot = line.slot AND message.topic = line.topic AND message.parked
             AND message.message_key = line.key
           ORDER BY message.seq LIMIT 1) AS first
), due AS (
    UPDATE outbox_messages AS message SET next_retry_at = clock_timestamp()
      FROM head
     WHERE head.next_retry_at IS NULL AND head.status <> 'DEAD' AND message.id = head.id)
SELECT slot, topic, key,
       CASE WHEN status <> 'DEAD'
            THEN coalesce(extract(epoch FROM next_retry_at - clock_timestamp()), 0)::float8 END
  FROM head
