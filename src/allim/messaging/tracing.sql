-- name: trace
-- The newest deliveries to a recipient, however it was spelt, or of a provider's id, with
-- everything that happened to them. Needs delivery_recipient (what is in flight stands in
-- delivery_leased only), delivery_provider and delivery_provider_message.
WITH meant AS MATERIALIZED (
    (SELECT id FROM delivery
      WHERE recipient = ANY (%(recipients)s::text[]) AND status <> 'PROCESSING'
        AND (CAST(%(tenant)s AS bigint) IS NULL OR tenant_id = %(tenant)s)
      ORDER BY id DESC LIMIT %(limit)s)
    UNION ALL
    (SELECT id FROM delivery
      WHERE status = 'PROCESSING' AND recipient = ANY (%(recipients)s::text[])
        AND (CAST(%(tenant)s AS bigint) IS NULL OR tenant_id = %(tenant)s)
      ORDER BY id DESC LIMIT %(limit)s)
    UNION
    (SELECT id FROM delivery
      WHERE provider_message_id = %(word)s AND provider_message_id IS NOT NULL
        AND (CAST(%(tenant)s AS bigint) IS NULL OR tenant_id = %(tenant)s)
      ORDER BY id + 0 DESC LIMIT %(limit)s)
    UNION
    (SELECT id FROM delivery
      WHERE provider_id = %(word)s AND provider_id IS NOT NULL
        AND (CAST(%(tenant)s AS bigint) IS NULL OR tenant_id = %(tenant)s)
      ORDER BY id + 0 DESC LIMIT %(limit)s)
)
SELECT json_build_object(
           'id', d.id, 'notification_id', d.notification_id, 'tenant_id', d.tenant_id,
           'source', n.source, 'type', n.type, 'job_id', n.data ->> 'job_id',
           'message_mode', n.data ->> 'message_mode',
           'straight_to_sms', n.data ->> 'straight_to_sms',
           'reservation_id', d.guard ->> 'reservation_id',
           'channel', d.channel, 'step', d.step, 'recipient', d.recipient, 'status', d.status,
           'error_code', d.error_code, 'last_error', d.last_error,
           'group_id', d.provider_id, 'message_id', d.provider_message_id,
           'receipt_status', d.receipt_status, 'receipt_at', d.receipt_at,
           'superseded_by', d.superseded_by,
           'next_retry_at', CASE WHEN d.status IN ('PENDING', 'FAILED') THEN d.next_retry_at END,
           'created_at', d.created_at, 'sent_at', d.sent_at, 'canceled_at', d.canceled_at,
           'charged', (SELECT coalesce(-sum(l.amount), 0)::bigint FROM tenant_ledger AS l
                        WHERE l.delivery_id = d.id),
           'attempts', (
               SELECT coalesce(json_agg(json_build_object(
                          'attempt_no', a.attempt_no, 'started_at', a.started_at,
                          'finished_at', a.finished_at, 'outcome', a.outcome,
                          'http_status', a.http_status, 'error_code', a.error_code,
                          'error', a.error, 'group_id', a.provider_id,
                          'receipt_status', a.receipt_status) ORDER BY a.attempt_no), '[]')
                 FROM delivery_attempt AS a WHERE a.delivery_id = d.id))
  FROM meant
  JOIN delivery AS d ON d.id = meant.id
  JOIN notification AS n ON n.id = d.notification_id
 ORDER BY d.id DESC
 LIMIT %(limit)s

-- name: refused
-- Jobs to a number that never became a notification. Needs refused_job_recipient.
SELECT json_build_object('message_id', r.message_id, 'job_id', r.job_id,
                         'tenant_id', r.tenant_id, 'reason', r.reason, 'receives', r.receives,
                         'created_at', r.created_at, 'updated_at', r.updated_at)
  FROM refused_job AS r
 WHERE r.recipient = ANY (%(recipients)s::text[])
   AND (CAST(%(tenant)s AS bigint) IS NULL OR r.tenant_id = %(tenant)s)
 ORDER BY r.created_at DESC
 LIMIT %(limit)s

-- name: opted_out
SELECT json_build_object('id', s.id, 'tenant_id', s.tenant_id,
                         'recipient_kind', s.recipient_kind, 'recipient', s.recipient,
                         'list', s.list, 'reason', s.reason,
                         'detail', CASE WHEN CAST(%(tenant)s AS bigint) IS NULL
                                          OR s.tenant_id IS NOT NULL THEN s.detail END,
                         'delivery_id', CASE WHEN CAST(%(tenant)s AS bigint) IS NULL
                                               OR s.tenant_id IS NOT NULL THEN s.delivery_id END,
                         'created_at', s.created_at)
  FROM suppression AS s
 WHERE s.recipient = ANY (%(recipients)s::text[])
   AND (CAST(%(tenant)s AS bigint) IS NULL OR s.tenant_id IS NULL OR s.tenant_id = %(tenant)s)
 ORDER BY s.id
