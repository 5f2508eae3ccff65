-- name: mark_canceled
-- The notification first: whoever settles one of its deliveries now waits, and what that
-- settling brings into the world afterwards is born CANCELED.
UPDATE notification
   SET canceled_at = coalesce(canceled_at, now()), updated_at = now()
 WHERE id = %(id)s AND (CAST(%(tenant)s AS bigint) IS NULL OR tenant_id = %(tenant)s)
RETURNING id

-- name: lock_cancelable
-- A second statement, so a new snapshot: it sees what was settled while the first one waited.
SELECT id FROM delivery
 WHERE notification_id = %(id)s AND status IN ('PENDING', 'FAILED', 'PROCESSING')
 ORDER BY id
   FOR NO KEY UPDATE

-- name: cancel_deliveries
-- A third, once they are locked, as no carrier of a digest can take them any more. What is under
-- way, by itself or with a carrier, goes on, but is marked: if it fails it is not tried again.
WITH cancelable AS MATERIALIZED (
    SELECT d.id, d.status = 'PROCESSING' OR EXISTS (
               SELECT FROM digest_member AS m
                 JOIN delivery AS c ON c.id = m.carrier_id AND c.attempts = m.carrier_attempt
                WHERE m.delivery_id = d.id
                  AND c.status IN ('PROCESSING', 'SUCCESS', 'ACCEPTED', 'HELD')) AS under_way
      FROM delivery AS d
     WHERE d.notification_id = %(id)s AND d.status IN ('PENDING', 'FAILED', 'PROCESSING')),
marked AS (
    UPDATE delivery d SET canceled_at = now(), updated_at = now()
      FROM cancelable
     WHERE d.id = cancelable.id AND cancelable.under_way)
UPDATE delivery d
   SET status = 'CANCELED', canceled_at = now(), next_retry_at = NULL, updated_at = now()
  FROM cancelable
 WHERE d.id = cancelable.id AND NOT cancelable.under_way
RETURNING d.id

-- name: lines_of
SELECT notification_status(
           coalesce(array_agg(DISTINCT d.status) FILTER (WHERE d.superseded_by IS NULL), '{}'),
           coalesce(bool_or(d.attempts > 0) FILTER (WHERE d.superseded_by IS NULL), false)),
       coalesce(json_agg(json_build_object('id', d.id, 'channel', d.channel,
                                           'recipient', d.recipient, 'status', d.status)
                         ORDER BY d.id), '[]')
  FROM delivery d
 WHERE d.notification_id = %(id)s

-- name: family_of
-- Where a delivery belongs; not locked, neither of these ever changes.
SELECT notification_id, coalesce(parent_id, id)
  FROM delivery
 WHERE id = %(id)s AND (CAST(%(tenant)s AS bigint) IS NULL OR tenant_id = %(tenant)s)

-- name: lock_notification
SELECT canceled_at FROM notification WHERE id = %(id)s FOR NO KEY UPDATE

-- name: lock_branch
-- The parent, the delivery and everything beneath it, in the order of ids: a child's id is
-- always above its parent's, and settling locks in that order too. Found first and locked
-- afterwards; no child can be born meanwhile, since its birth waits for the notification.
WITH RECURSIVE branch AS (
    SELECT id FROM delivery WHERE id = %(id)s
     UNION ALL
    SELECT child.id FROM branch JOIN delivery child ON child.parent_id = branch.id)
SELECT d.id, d.status, d.superseded_by, d.channel, d.expires_at <= now()
  FROM delivery d
 WHERE d.id = %(parent)s OR d.id IN (SELECT id FROM branch)
 ORDER BY d.id
   FOR NO KEY UPDATE OF d

-- name: retry_waiting
-- It waits for its retry anyway; now is the time.
UPDATE delivery SET next_retry_at = now(), updated_at = now() WHERE id = %(id)s

-- name: as_new
-- A fragment: a delivery as if it had never been tried. Nothing of the old attempt stays: with
-- its provider id, a later reconcile would find the old message and take the new one for sent.
status = 'PENDING', next_retry_at = now(), retry_count = 0, rescue_count = 0,
claim_token = NULL, lease_owner = NULL, lease_until = NULL,
provider_id = NULL, provider_message_id = NULL, receipt_status = NULL, receipt_at = NULL,
superseded_by = NULL, last_error = NULL, error_code = NULL, sent_at = NULL, updated_at = now()

-- name: retry_finished
UPDATE delivery SET {as_new} WHERE id = %(id)s

-- name: supersede
-- What had taken the place of a delivery gives it back: only the delivery itself counts again.
UPDATE delivery SET superseded_by = %(by)s, updated_at = now() WHERE id = ANY (%(ids)s)

-- name: discard
UPDATE delivery
   SET status = 'CANCELED', next_retry_at = NULL, error_code = 'discarded',
       last_error = %(reason)s, updated_at = now()
 WHERE id = %(id)s
