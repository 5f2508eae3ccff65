-- Statements of the receipt inbox: which groups are to be asked for, and who asks.

-- name: hear_of
-- Groups that a webhook spoke of are asked for soon, but none more often than every two seconds,
-- however often it is spoken of. In one order, so that two webhooks never wait for each other.
INSERT INTO receipt_inbox AS i (provider_id, due_at)
SELECT DISTINCT heard.provider_id, clock_timestamp()
  FROM unnest(%(groups)s::text[]) AS heard (provider_id)
 ORDER BY heard.provider_id
    ON CONFLICT (provider_id) DO UPDATE
   SET due_at = least(i.due_at, greatest(clock_timestamp(), i.asked_at + interval '2 seconds')),
       updated_at = now()

-- name: miss
-- Groups whose messages were accepted a while ago and of which nothing was heard since.
-- Needs delivery_unreceipted.
INSERT INTO receipt_inbox (provider_id, due_at)
SELECT DISTINCT missed.provider_id, clock_timestamp()
  FROM (SELECT d.provider_id FROM delivery AS d
         WHERE d.status = 'ACCEPTED' AND d.provider_id IS NOT NULL
           AND d.channel = ANY (%(channels)s::text[])
           AND d.sent_at < now() - %(patience)s * interval '1 second'
           AND NOT EXISTS (SELECT FROM receipt_inbox AS i WHERE i.provider_id = d.provider_id)
         ORDER BY d.sent_at
         LIMIT 20000) AS missed
 ORDER BY missed.provider_id
    ON CONFLICT DO NOTHING

-- name: take
-- Due groups, longest due first; each is one relay's to ask for until it is due again, which is
-- later each time. Needs receipt_inbox_due.
WITH due AS MATERIALIZED (
    SELECT provider_id FROM receipt_inbox
     WHERE due_at <= now()
     ORDER BY due_at
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
)
UPDATE receipt_inbox AS i
   SET asked = i.asked + 1, asked_at = clock_timestamp(), updated_at = now(),
       due_at = clock_timestamp()
                + least(%(pause)s * 2 ^ least(i.asked, 12), 3600) * interval '1 second'
  FROM due WHERE i.provider_id = due.provider_id
RETURNING i.provider_id, i.created_at > now() - interval '10 minutes'

-- name: waiting_in
-- The deliveries of some groups that wait for their reports; those under way do after their
-- settle. Needs delivery_provider.
SELECT d.provider_id, d.id, d.notification_id, d.recipient, d.channel, d.status,
       d.provider_message_id
  FROM delivery AS d
 WHERE d.provider_id = ANY (%(groups)s::text[]) AND d.status IN ('ACCEPTED', 'PROCESSING')

-- name: look_again_soon
-- Groups with deliveries whose settle is still to come.
UPDATE receipt_inbox SET due_at = least(due_at, clock_timestamp() + interval '5 seconds'),
       updated_at = now()
 WHERE provider_id = ANY (%(groups)s::text[])

-- name: done_with
DELETE FROM receipt_inbox WHERE provider_id = ANY (%(groups)s::text[])
