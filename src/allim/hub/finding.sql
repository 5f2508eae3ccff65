-- name: by_id
-- Primary key only.
SELECT id FROM notification WHERE id = %(id)s

-- name: by_delivery
-- Primary key only.
SELECT notification_id FROM delivery WHERE id = %(id)s

-- name: by_word
-- Notifications that know a word as one of their ids, newest first. Needs delivery_provider,
-- delivery_provider_message, delivery_row_key and notification_idempotency. Short message ids
-- (Telegram's are numbers from 1 on) are left to the filter of deliveries: whoever types 1024 is
-- as likely to mean an order.
SELECT DISTINCT id FROM (
    (SELECT notification_id AS id FROM delivery
      WHERE provider_id = %(word)s AND provider_id IS NOT NULL LIMIT 200)
    UNION ALL
    (SELECT notification_id FROM delivery
      WHERE provider_message_id = %(word)s AND provider_message_id IS NOT NULL
        AND length(CAST(%(word)s AS text)) >= 8 LIMIT 200)
    UNION ALL
    (SELECT notification_id FROM delivery
      WHERE row_key = %(word)s AND row_key IS NOT NULL LIMIT 200)
    UNION ALL
    (SELECT id FROM notification
      WHERE idempotency_key = %(word)s AND idempotency_key IS NOT NULL LIMIT 200)) known
 ORDER BY id DESC

-- name: is_recipient
-- Needs delivery_recipient, and delivery_leased for what is in flight.
SELECT EXISTS (SELECT FROM delivery WHERE recipient = %(word)s AND status <> 'PROCESSING')
    OR EXISTS (SELECT FROM delivery WHERE recipient = %(word)s AND status = 'PROCESSING')
