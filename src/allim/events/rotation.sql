-- name: page_end
-- Where the next `scan` rows end, along the primary key; no row where there are none. The walk
-- needs no index of its own, which every message would have to pay for.
SELECT id FROM (
    SELECT id FROM outbox_messages
     WHERE CAST(%(after)s AS uuid) IS NULL OR id > %(after)s
     ORDER BY id LIMIT %(scan)s) AS page
 ORDER BY id DESC LIMIT 1

-- name: sealed_otherwise
-- Messages of a page whose payload another key than the current one has sealed.
SELECT id FROM outbox_messages
 WHERE (CAST(%(after)s AS uuid) IS NULL OR id > %(after)s) AND id <= %(last)s
   AND encryption_key <> %(current)s
   AND (%(finished)s OR status IN ('PENDING', 'FAILED', 'DEAD'))
 ORDER BY id

-- name: still_sealed_otherwise
SELECT id FROM outbox_messages
 WHERE id = ANY (%(ids)s::uuid[]) AND encryption_key <> %(current)s
   AND (%(finished)s OR status IN ('PENDING', 'FAILED', 'DEAD'))

-- name: lock
-- What a relay is settling just now is skipped, not waited for: it locks in another order.
SELECT id, topic, encryption_key, payload FROM outbox_messages
 WHERE id = ANY (%(ids)s::uuid[]) AND encryption_key <> %(current)s
 ORDER BY id
   FOR NO KEY UPDATE SKIP LOCKED

-- name: seal_anew
-- The version stays: what a relay has read already is the same message.
UPDATE outbox_messages AS message
   SET payload = sealed.payload, encryption_key = %(current)s, updated_at = now()
  FROM unnest(%(ids)s::uuid[], %(payloads)s::bytea[]) AS sealed (id, payload)
 WHERE message.id = sealed.id
