-- name: note
-- A row only for the first time. Whoever notes the same event in a transaction that is still
-- open is waited for, by the primary key.
INSERT INTO inbox (consumer, event_id)
SELECT consumer, event_id
  FROM json_to_record(CAST(%(batch)s AS json)) AS noted (consumer text, event_id uuid)
    ON CONFLICT DO NOTHING
RETURNING 1

-- name: forget
-- Through the BRIN index on created_at; in batches, so that no transaction gets long.
WITH wanted AS MATERIALIZED (
    SELECT * FROM json_to_record(CAST(%(batch)s AS json)) AS w (
        consumer text, seconds double precision, most integer)),
forgotten AS (
    DELETE FROM inbox
     WHERE (consumer, event_id) IN (
        SELECT i.consumer, i.event_id
          FROM inbox i
          JOIN wanted w USING (consumer)
         WHERE i.created_at < now() - make_interval(secs => w.seconds)
         LIMIT (SELECT most FROM wanted))
    RETURNING 1)
SELECT count(*) FROM forgotten
