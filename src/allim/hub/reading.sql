-- name: delivery_json
-- A fragment: one delivery `d` as JSON, with its attempts. Answers of providers are cut here;
-- the whole of them is told delivery by delivery.
json_build_object(
    'id', d.id, 'notification_id', d.notification_id, 'parent_id', d.parent_id, 'step', d.step,
    'superseded_by', d.superseded_by, 'tenant_id', d.tenant_id, 'channel', d.channel,
    'recipient', d.recipient, 'template_code', d.template_code, 'payload', d.payload,
    'row_key', d.row_key, 'priority', d.priority, 'status', d.status,
    'attempt_count', d.attempts, 'retry_count', d.retry_count, 'rescue_count', d.rescue_count,
    'max_attempts', d.max_attempts, 'expires_at', d.expires_at,
    'next_retry_at', CASE WHEN d.status IN ('PENDING', 'FAILED') THEN d.next_retry_at END,
    'last_error', d.last_error, 'error_code', d.error_code, 'provider_id', d.provider_id,
    'provider_message_id', d.provider_message_id, 'receipt_status', d.receipt_status,
    'receipt_at', d.receipt_at, 'sent_at', d.sent_at, 'guard', d.guard,
    'then', d.then_steps, 'fallback', d.fallback_steps,
    'created_at', d.created_at, 'updated_at', d.updated_at,
    'attempts', (
        SELECT coalesce(json_agg(json_build_object(
                   'attempt_no', a.attempt_no, 'started_at', a.started_at,
                   'finished_at', a.finished_at, 'outcome', a.outcome,
                   'http_status', a.http_status, 'error_code', a.error_code, 'error', a.error,
                   'provider_id', a.provider_id, 'worker', a.worker,
                   'response', left(a.response, %(response)s)) ORDER BY a.attempt_no), '[]')
          FROM delivery_attempt a
         WHERE a.delivery_id = d.id))

-- name: notification_head
-- A fragment: the columns of a notification `n`, as NotificationSummary has them.
'id', n.id, 'tenant_id', n.tenant_id, 'source', n.source, 'type', n.type, 'title', n.title,
'message', n.message, 'data', n.data, 'priority', n.priority,
'idempotency_key', n.idempotency_key, 'scheduled_at', n.scheduled_at,
'expires_at', n.expires_at, 'canceled_at', n.canceled_at, 'traceparent', n.traceparent,
'created_at', n.created_at

-- name: judged
-- A fragment: joins a notification `n` with its status and the lines of its deliveries.
CROSS JOIN LATERAL (
    SELECT notification_status(
               coalesce(array_agg(DISTINCT d.status) FILTER (WHERE d.superseded_by IS NULL), '{}'),
               coalesce(bool_or(d.attempts > 0) FILTER (WHERE d.superseded_by IS NULL), false)
           ) AS status
      FROM delivery d
     WHERE d.notification_id = n.id) judged

-- name: one_notification
-- Everything about one notification, in one statement and so on one snapshot: the status
-- that is shown always agrees with the deliveries beside it.
SELECT json_build_object({head}, 'status', judged.status, 'deliveries', (
           SELECT coalesce(json_agg({delivery} ORDER BY d.id), '[]')
             FROM delivery d
            WHERE d.notification_id = n.id))
  FROM notification n {judged}
 WHERE n.id = %(id)s

-- name: one_delivery
SELECT {delivery} FROM delivery d WHERE d.id = %(id)s

-- name: notifications
-- One step of a listing: looks at up to `scan` notifications from the cursor on, newest
-- first (ids are in time order), and answers with those that fit. What no index knows (the
-- computed status, source, type, channel, words) is judged row by row, so `scan` bounds what
-- one step may cost; the first row always tells how many were looked at and where the next
-- step begins.
WITH {source},
fitting AS MATERIALIZED (
    SELECT n.id, json_build_object({head}, 'status', judged.status, 'deliveries', (
               SELECT coalesce(json_agg(json_build_object(
                          'id', d.id, 'channel', d.channel, 'recipient', d.recipient,
                          'status', d.status) ORDER BY d.id), '[]')
                 FROM delivery d
                WHERE d.notification_id = n.id)) AS item
      FROM scanned n {judged}
     WHERE (CAST(%(status)s AS text[]) IS NULL OR judged.status = ANY (%(status)s)) {judged_filters}
     ORDER BY n.id DESC
     LIMIT %(limit)s)
SELECT count(*), (array_agg(id ORDER BY id))[1], NULL::json FROM scanned
UNION ALL
(SELECT 1, id, item FROM fitting ORDER BY id DESC)

-- name: scanned
-- A fragment: along the primary key, or by what an index knows.
scanned AS MATERIALIZED (
    SELECT n.* FROM notification n
     WHERE (CAST(%(before)s AS uuid) IS NULL OR n.id < %(before)s) {filters}
     ORDER BY n.id DESC
     LIMIT %(scan)s)

-- name: scanned_unsent
-- A fragment: only those of which something was not sent. Needs delivery_unsent, which has them
-- in their order.
unsent AS MATERIALIZED (
    SELECT DISTINCT n.id
      FROM (SELECT d.notification_id AS id FROM delivery d
             WHERE d.status IN ('DEAD', 'HELD', 'SKIPPED', 'CANCELED', 'EXPIRED')) n
     WHERE (CAST(%(before)s AS uuid) IS NULL OR n.id < %(before)s) {ranges}
     ORDER BY n.id DESC
     LIMIT %(scan)s),
scanned AS MATERIALIZED (
    SELECT n.* FROM unsent CROSS JOIN LATERAL (
        SELECT * FROM notification WHERE notification.id = unsent.id OFFSET 0) n)

-- name: to_recipients
-- The notifications to some recipients, once for each delivery, up to `most` of each kind. Needs
-- delivery_recipient, and delivery_leased for what is in flight.
(SELECT notification_id FROM delivery
  WHERE recipient = ANY (%(recipients)s::text[]) AND status <> 'PROCESSING' LIMIT %(most)s)
UNION ALL
(SELECT notification_id FROM delivery
  WHERE recipient = ANY (%(recipients)s::text[]) AND status = 'PROCESSING' LIMIT %(most)s)

-- name: unfinished
-- The notifications of what is not final, once for each delivery, up to `most` of each kind. Needs delivery_new,
-- delivery_timed, delivery_leased and delivery_parked, in this order: never the finished ones.
SELECT notification_id FROM (
    (SELECT notification_id FROM delivery
      WHERE status = 'PENDING' AND next_retry_at IS NULL LIMIT %(most)s)
    UNION ALL
    (SELECT notification_id FROM delivery
      WHERE status IN ('PENDING', 'FAILED') AND next_retry_at IS NOT NULL LIMIT %(most)s)
    UNION ALL
    (SELECT notification_id FROM delivery WHERE status = 'PROCESSING' LIMIT %(most)s)
    UNION ALL
    (SELECT notification_id FROM delivery
      WHERE status IN ('FAILED', 'ACCEPTED', 'HELD')
        AND status IN ('DEAD', 'HELD', 'SKIPPED', 'FAILED', 'ACCEPTED') LIMIT %(most)s)) open

-- name: deliveries
-- One step of a listing, as `notifications`.
WITH {source},
fitting AS MATERIALIZED (
    SELECT d.id, {delivery} AS item
      FROM scanned d
     WHERE true {judged_filters}
     ORDER BY d.id DESC
     LIMIT %(limit)s)
SELECT count(*), min(id), NULL::json FROM scanned
UNION ALL
(SELECT 1, id, item FROM fitting ORDER BY id DESC)

-- name: deliveries_scanned
scanned AS MATERIALIZED (
    SELECT d.* FROM delivery d
     WHERE (CAST(%(before)s AS bigint) IS NULL OR d.id < %(before)s) {filters}
     ORDER BY d.id DESC
     LIMIT %(scan)s)

-- name: deliveries_to
-- By delivery_recipient, which leaves out what is in flight; that is in delivery_leased.
scanned AS MATERIALIZED (
    (SELECT d.* FROM delivery d
      WHERE d.recipient = %(recipient)s AND d.status <> 'PROCESSING'
        AND (CAST(%(before)s AS bigint) IS NULL OR d.id < %(before)s)
      ORDER BY d.id DESC
      LIMIT %(scan)s)
    UNION ALL
    (SELECT d.* FROM delivery d
      WHERE d.recipient = %(recipient)s AND d.status = 'PROCESSING'
        AND (CAST(%(before)s AS bigint) IS NULL OR d.id < %(before)s)
      ORDER BY d.id DESC
      LIMIT %(scan)s)
    ORDER BY id DESC
    LIMIT %(scan)s)

-- name: deliveries_parked
-- Of each state and channel the newest from delivery_parked, of these the newest of all. The
-- channels that are there are found by leaping from one to the next.
RECURSIVE places AS (
    SELECT s.status, (SELECT min(d.channel) FROM delivery d
                       WHERE d.status = s.status
                         AND d.status IN ('DEAD', 'HELD', 'SKIPPED', 'FAILED', 'ACCEPTED')) AS channel
      FROM unnest(%(status)s::text[]) AS s (status)
    UNION ALL
    SELECT p.status, (SELECT min(d.channel) FROM delivery d
                       WHERE d.status = p.status AND d.channel > p.channel
                         AND d.status IN ('DEAD', 'HELD', 'SKIPPED', 'FAILED', 'ACCEPTED'))
      FROM places p WHERE p.channel IS NOT NULL),
scanned AS MATERIALIZED (
    SELECT d.*
      FROM places p
     CROSS JOIN LATERAL (
           SELECT * FROM delivery d
            WHERE d.status = p.status AND d.channel = p.channel
              AND d.status IN ('DEAD', 'HELD', 'SKIPPED', 'FAILED', 'ACCEPTED')
              AND (CAST(%(before)s AS bigint) IS NULL OR d.id < %(before)s)
            ORDER BY d.id DESC
            LIMIT %(scan)s) d
     WHERE p.channel IS NOT NULL
       AND (CAST(%(channel)s AS text) IS NULL OR p.channel = %(channel)s)
     ORDER BY d.id DESC
     LIMIT %(scan)s)

-- name: notification_source
AND n.source = %(source)s
-- name: notification_type
AND n.type = %(type)s
-- name: notification_tenant_id
AND n.tenant_id = %(tenant_id)s
-- name: notification_from
-- The range of ids is a day wider than that of times: ids carry their maker's clock.
AND n.created_at >= %(from)s
-- name: notification_from_id
AND n.id >= %(from_id)s
-- name: notification_to
AND n.created_at < %(to)s
-- name: notification_to_id
AND n.id < %(to_id)s
-- name: notification_ids
AND n.id = ANY (%(ids)s::uuid[])
-- name: notification_q
AND (n.title ILIKE %(q)s OR n.message ILIKE %(q)s OR n.type ILIKE %(q)s OR n.source ILIKE %(q)s)
-- name: notification_channel
-- Whether one of its deliveries fits, here and below: asked notification by notification, which an
-- EXISTS would let the planner turn round.
AND (SELECT bool_or(d.channel = %(channel)s) FROM delivery d WHERE d.notification_id = n.id)
-- name: notification_recipient
AND (SELECT bool_or(d.recipient = ANY (%(recipient)s::text[]))
       FROM delivery d WHERE d.notification_id = n.id)
-- name: notification_channel_recipient
AND (SELECT bool_or(d.recipient = ANY (%(recipient)s::text[]) AND d.channel = %(channel)s)
       FROM delivery d WHERE d.notification_id = n.id)

-- name: delivery_status
AND d.status = ANY (%(status)s)
-- name: delivery_channel
AND d.channel = %(channel)s
-- name: delivery_notification_id
AND d.notification_id = %(notification_id)s
-- name: delivery_error_code
AND d.error_code = %(error_code)s
-- name: delivery_tenant_id
AND d.tenant_id = %(tenant_id)s
-- name: delivery_provider_id
AND d.provider_id = %(provider_id)s
-- name: delivery_provider_message_id
AND d.provider_message_id = %(provider_message_id)s
-- name: delivery_row_key
AND d.row_key = %(row_key)s
