-- name: lock_keys
-- The keys of a claim, locked in their order: relays take turns. `wait` is seconds, 0 where the
-- next message may go. Primary key only.
INSERT INTO digest AS g (key, next_at)
SELECT key, '-infinity' FROM unnest(%(keys)s::text[]) AS k (key) ORDER BY key
    ON CONFLICT (key) DO UPDATE SET updated_at = now()
RETURNING key, carrier_id,
          CASE WHEN next_at > clock_timestamp()
               THEN extract(epoch FROM next_at - clock_timestamp())::float8 ELSE 0.0 END,
          next_at = '-infinity'

-- name: still_to_come
-- Carriers that are being sent, or have a place in their target's line, and for how long others
-- had better wait for them. Asked once the keys are locked. Primary key only.
SELECT id, greatest(extract(epoch FROM CASE WHEN status = 'PROCESSING' THEN lease_until
                                            ELSE next_retry_at END - clock_timestamp()), 1.0)::float8
  FROM delivery
 WHERE id = ANY (%(carriers)s::bigint[])
   AND (status = 'PROCESSING' AND lease_until > clock_timestamp()
        OR status = 'PENDING' AND error_code = %(reserved)s
           AND next_retry_at > clock_timestamp() - interval '5 seconds')

-- name: judged
-- Of a claim, what needs no telling: its carrier arrived while somebody had it locked (so `carried`
-- passed it over), or it was cancelled while a carrier had it that then failed. Primary keys only.
SELECT d.id, c.id, c.status = 'HELD'
  FROM delivery AS d
  LEFT JOIN digest_member AS m ON m.delivery_id = d.id
  LEFT JOIN delivery AS c ON c.id = m.carrier_id AND c.attempts = m.carrier_attempt
                         AND c.status IN ('SUCCESS', 'ACCEPTED', 'HELD')
 WHERE d.id = ANY (%(ids)s::bigint[]) AND (c.id IS NOT NULL OR d.canceled_at IS NOT NULL)

-- name: open
UPDATE digest AS g
   SET next_at = clock_timestamp() + %(window)s * interval '1 second', carrier_id = o.carrier_id,
       updated_at = now()
  FROM unnest(%(keys)s::text[], %(carriers)s::bigint[]) AS o (key, carrier_id)
 WHERE g.key = o.key

-- name: arrive
-- The window of a message begins when it is known to have arrived: a call takes its time. In the
-- order of `lock_keys`, whose transactions wait for nothing else.
WITH own AS MATERIALIZED (
    SELECT key FROM digest WHERE key = ANY (%(keys)s::text[]) ORDER BY key FOR NO KEY UPDATE
)
UPDATE digest AS g
   SET next_at = greatest(next_at, clock_timestamp() + %(window)s * interval '1 second'),
       carrier_id = CASE WHEN carrier_id = ANY (%(carriers)s::bigint[]) THEN NULL
                         ELSE carrier_id END,
       updated_at = now()
  FROM own WHERE g.key = own.key

-- name: wait
-- Whoever comes back keeps the carrier that may have taken it. Primary key only.
INSERT INTO digest_member AS m (delivery_id, key, carrier_id, carrier_attempt)
SELECT id, key, carrier_id, attempt
  FROM unnest(%(ids)s::bigint[], %(keys)s::text[], %(carriers)s::bigint[], %(attempts)s::int[])
    AS w (id, key, carrier_id, attempt)
 ORDER BY id
    ON CONFLICT (delivery_id) DO UPDATE
   SET key = excluded.key, carrier_id = coalesce(excluded.carrier_id, m.carrier_id),
       carrier_attempt = coalesce(excluded.carrier_attempt, m.carrier_attempt), updated_at = now()

-- name: forget_ended
-- What waits for a key no more: cancelled, expired, or the carrier of an earlier message. Of the
-- eldest only, since what ends does so in about that order. Needs digest_member_key.
DELETE FROM digest_member WHERE delivery_id IN (
    SELECT m.delivery_id
      FROM unnest(%(keys)s::text[]) AS k (key)
     CROSS JOIN LATERAL (SELECT delivery_id FROM digest_member
                          WHERE key = k.key ORDER BY delivery_id LIMIT 1000) AS m
     WHERE NOT EXISTS (
         SELECT FROM delivery AS d
          WHERE d.id = m.delivery_id AND d.status IN ('PENDING', 'PROCESSING', 'FAILED')))

-- name: forget_idle
-- Keys of long ago, not the one begun this moment, with what may still stand under them: it comes
-- by itself.
WITH idle AS (
    DELETE FROM digest WHERE key IN (
        SELECT key FROM digest
         WHERE next_at < now() - interval '1 day' AND updated_at < now() - interval '1 day'
         LIMIT 1000 FOR UPDATE SKIP LOCKED)
    RETURNING key
)
DELETE FROM digest_member AS m USING idle WHERE m.key = idle.key

-- name: take
-- What waits for a key goes with its carrier, and is put off until that has had its turn. Whoever
-- is locked just now is left for the next message. Of its words no more than a line needs.
-- Needs digest_member_key.
WITH taken AS MATERIALIZED (
    SELECT waiting.id, o.carrier_id, o.attempt
      FROM unnest(%(keys)s::text[], %(carriers)s::bigint[], %(attempts)s::int[])
        AS o (key, carrier_id, attempt)
     CROSS JOIN LATERAL (
         SELECT d.id
           FROM digest_member AS m JOIN delivery AS d ON d.id = m.delivery_id
          WHERE m.key = o.key AND d.status = 'PENDING' AND d.canceled_at IS NULL
            AND (d.expires_at IS NULL OR d.expires_at > now())
          ORDER BY m.delivery_id
          LIMIT %(most)s
            FOR NO KEY UPDATE OF d SKIP LOCKED) AS waiting
     LIMIT 2 * %(most)s
), put_off AS (
    UPDATE delivery AS d
       SET next_retry_at = now() + %(window)s * interval '1 second', updated_at = now()
      FROM taken WHERE d.id = taken.id
    RETURNING d.id, d.notification_id, d.payload, taken.carrier_id
), noted AS (
    UPDATE digest_member AS m
       SET carrier_id = taken.carrier_id, carrier_attempt = taken.attempt, updated_at = now()
      FROM taken WHERE m.delivery_id = taken.id
)
SELECT p.carrier_id, p.id, left(coalesce(p.payload ->> 'title', n.title), 200),
       left(coalesce(p.payload ->> 'message', n.message), 200), n.type
  FROM put_off AS p JOIN notification AS n ON n.id = p.notification_id
 ORDER BY p.id

-- name: carried
-- What went with carriers that have arrived, and may have expired on the way. Nothing is waited
-- for: what somebody has locked or claimed just now is told apart by `judged`.
-- Needs digest_member_carrier.
SELECT d.id, c.id, d.attempts + 1, d.retry_count, d.max_attempts, d.rescue_count, d.channel,
       d.tenant_id, n.id, n.type, n.source, n.created_at, n.traceparent
  FROM digest_member AS m
  JOIN delivery AS c ON c.id = m.carrier_id AND c.attempts = m.carrier_attempt
  JOIN delivery AS d ON d.id = m.delivery_id
  JOIN notification AS n ON n.id = d.notification_id
 WHERE m.carrier_id = ANY (%(carriers)s::bigint[]) AND d.status IN ('PENDING', 'EXPIRED')
 ORDER BY d.id
   FOR NO KEY UPDATE OF d SKIP LOCKED
   FOR SHARE OF n SKIP LOCKED

-- name: attempt
-- As a claim does: what settles must be under way, and its attempt on record. Primary keys only.
WITH begun AS (
    UPDATE delivery AS d
       SET status = 'PROCESSING', claim_token = %(token)s::uuid, attempts = d.attempts + 1,
           lease_owner = 'digest', lease_until = now() + interval '1 minute', updated_at = now()
     WHERE d.id = ANY (%(ids)s::bigint[])
    RETURNING d.id, d.attempts
)
INSERT INTO delivery_attempt (delivery_id, attempt_no, worker)
SELECT id, attempts, 'digest' FROM begun

-- name: forget
DELETE FROM digest_member WHERE delivery_id = ANY (%(ids)s::bigint[])

-- name: note_carried
-- So that the carrier shows what it carried.
UPDATE delivery AS d
   SET payload = d.payload || jsonb_build_object('digest', c.ids), updated_at = now()
  FROM (SELECT carrier, jsonb_agg(id ORDER BY id) AS ids
          FROM unnest(%(carriers)s::bigint[], %(ids)s::bigint[]) AS w (carrier, id)
         GROUP BY carrier) AS c
 WHERE d.id = c.carrier
