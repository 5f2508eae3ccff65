-- name: error_kind
-- A fragment: what the error of a message begins with, by which messages are grouped and found.
-- In one line, so that it survives a form and a shell.
btrim(left(regexp_replace(split_part(left(coalesce(error_message, ''), 400), ':', 1),
                          '\s+', ' ', 'g'), 80))

-- name: groups
-- Dead events by topic and what their error begins with, of the newest `most`. Needs
-- outbox_unsent.
SELECT dead.topic, dead.error, count(*)::int, min(dead.created_at), max(dead.created_at),
       (array_agg(dead.message ORDER BY dead.seq DESC))[1]
  FROM (SELECT topic::text AS topic, seq, created_at,
               {error_kind} AS error,
               left(error_message, 300) AS message
          FROM outbox_messages
         WHERE status = 'DEAD' AND status IN ('FAILED', 'DEAD')
         ORDER BY seq DESC LIMIT %(most)s) dead
 GROUP BY dead.topic, dead.error
 ORDER BY count(*) DESC, dead.topic, dead.error
 LIMIT %(groups)s
