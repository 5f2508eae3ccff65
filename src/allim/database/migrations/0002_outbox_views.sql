-- The alert chain as its operators look at it: a sheet outbox and a notification outbox. Both are
-- views over `delivery`; nothing is kept twice.

-- The newest rows of one of the two first. Only these channels' rows stand in it, so that
-- nothing else pays for it; without it a few alerts among millions of e-mails would be looked
-- for in all of them.
CREATE INDEX delivery_chain ON delivery (channel, id) WHERE channel IN ('SHEET', 'KAKAO');

-- One expression, so that it is folded into the query that asks.
CREATE FUNCTION outbox_status(status text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN status IN ('SUCCESS', 'ACCEPTED') THEN 'SENT'
        WHEN status IN ('DEAD', 'HELD') THEN 'FAILED'
        ELSE status
    END;

-- Left joins, by primary keys: a query that asks for no column of the joined row does not read it.
CREATE VIEW sheet_outbox AS
SELECT d.id,
       d.notification_id,
       n.data ->> 'source_type' AS source_type,
       n.data ->> 'source_id' AS source_id,
       d.row_key,
       n.type AS alert_type,
       n.title,
       n.message,
       n.data AS payload,
       outbox_status(d.status) AS status,
       d.retry_count,
       d.max_attempts,
       CASE WHEN d.status NOT IN ('SUCCESS', 'ACCEPTED')
            THEN coalesce(d.last_error, d.error_code) END AS last_error,
       CASE WHEN d.status NOT IN ('DEAD', 'HELD') THEN d.next_retry_at END AS next_retry_at,
       d.error_code,
       d.status AS delivery_status,
       d.sent_at,
       d.created_at,
       d.updated_at
  FROM delivery AS d
  LEFT JOIN notification AS n ON n.id = d.notification_id
 WHERE d.channel = 'SHEET';

COMMENT ON VIEW sheet_outbox IS
    'Rows for the alert sheet: deliveries of the channel SHEET.';
COMMENT ON COLUMN sheet_outbox.status IS
    'PENDING (waits for its first try, or was put off without spending one), PROCESSING (under way),'
    ' SENT, FAILED (next_retry_at tells when it is tried again; null: never, unless an operator'
    ' replays it), SKIPPED, CANCELED, EXPIRED (never sent, and never will be).'
    ' delivery_status has the finer word.';
COMMENT ON COLUMN sheet_outbox.error_code IS
    'Why it is as it is. On a SENT row: not_configured (nobody was called) or duplicate (the row'
    ' was there already).';

-- `source_type` is a constant, and `source_id` the parent's own column and nothing else: so a
-- join on both comes down to delivery_row_key, then delivery_parent, and the planner knows how
-- many rows it meets. An expression would be a guess, and with it the join goes over all rows.
CREATE VIEW notification_outbox AS
SELECT d.id,
       d.notification_id,
       'sheet_alert' AS source_type,
       p.row_key AS source_id,
       d.channel,
       d.template_code,
       d.recipient,
       n.type AS alert_type,
       coalesce(d.payload ->> 'title', n.title) AS title,
       coalesce(d.payload ->> 'message', n.message) AS message,
       n.data AS payload,
       outbox_status(d.status) AS status,
       d.retry_count,
       d.max_attempts,
       CASE WHEN d.status NOT IN ('SUCCESS', 'ACCEPTED')
            THEN coalesce(d.last_error, d.error_code) END AS last_error,
       CASE WHEN d.status NOT IN ('DEAD', 'HELD') THEN d.next_retry_at END AS next_retry_at,
       d.error_code,
       d.status AS delivery_status,
       d.sent_at,
       d.created_at,
       d.updated_at
  FROM delivery AS d
  LEFT JOIN delivery AS p ON p.id = d.parent_id AND p.channel = 'SHEET'
  LEFT JOIN notification AS n ON n.id = d.notification_id
 WHERE d.channel = 'KAKAO';

COMMENT ON VIEW notification_outbox IS
    'Notices by Kakao: deliveries of the channel KAKAO.';
COMMENT ON COLUMN notification_outbox.source_type IS
    'Always sheet_alert.';
COMMENT ON COLUMN notification_outbox.source_id IS
    'The row_key of the row of the sheet that it followed; null where it was asked for by itself.';
COMMENT ON COLUMN notification_outbox.status IS
    'As in sheet_outbox.';
COMMENT ON COLUMN notification_outbox.error_code IS
    'Why it is as it is. On a SENT row: not_configured (nobody was called).';
