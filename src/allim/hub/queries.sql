-- name: create_notifications
-- N notifications with their deliveries in one statement, so that a request costs one round
-- trip however many deliveries it has, and the API, notify() and bulk share one definition.
-- The parameter is a JSON array of notifications, each with its "deliveries".
--
-- Keys are inserted in sorted order, first all of the notifications' and then all of the row
-- keys, so that two batches can wait for each other in one direction only. ON CONFLICT names
-- no index: a repeat is one by idempotency key, or by id where a batch is sent again
-- after its connection was lost. Ids are drawn after the transaction id (see the schema), before
-- the sort by row key, so that they follow the order of the request.
WITH input AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(%(batch)s AS json)) AS n (
        id uuid, tenant_id bigint, source text, type text, title text, message text, data jsonb,
        priority smallint, idempotency_key text, request_hash text, scheduled_at timestamptz,
        expires_at timestamptz, traceparent text, deliveries json)
),
created AS (
    INSERT INTO notification (id, tenant_id, source, type, title, message, data, priority,
                              idempotency_key, request_hash, scheduled_at, expires_at, traceparent)
    SELECT id, tenant_id, source, type, title, message, coalesce(data, '{}'), priority,
           idempotency_key, decode(request_hash, 'hex'), scheduled_at, expires_at, traceparent
      FROM input
     ORDER BY idempotency_key, tenant_id, id
        ON CONFLICT DO NOTHING
    RETURNING id, created_at
),
numbered AS MATERIALIZED (
    SELECT CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('delivery_id_seq') END AS id,
           n.id AS notification_id, created.created_at, d.position, n.tenant_id, n.priority,
           n.scheduled_at, n.expires_at, d.channel, d.recipient, d.template_code, d.payload,
           d.row_key, d.max_attempts, d.guard, d.then_steps, d.fallback_steps
      FROM created
      JOIN input n USING (id)
     CROSS JOIN LATERAL ROWS FROM (json_to_recordset(n.deliveries) AS (
               channel text, recipient text, template_code text, payload jsonb, row_key text,
               max_attempts integer, guard jsonb, "then" jsonb, fallback jsonb))
           WITH ORDINALITY AS d (
               channel, recipient, template_code, payload, row_key, max_attempts, guard,
               then_steps, fallback_steps, position)
     ORDER BY n.id, d.position
),
delivered AS (
    INSERT INTO delivery (id, notification_id, tenant_id, priority, channel, recipient,
                          template_code, payload, row_key, max_attempts, guard, then_steps,
                          fallback_steps, next_retry_at, expires_at)
    SELECT id, notification_id, tenant_id, priority, channel, recipient,
           template_code, coalesce(payload, '{}'), row_key, max_attempts, guard, then_steps,
           fallback_steps, scheduled_at, expires_at
      FROM numbered
     ORDER BY row_key, channel, tenant_id, id
)
SELECT notification_id, created_at, array_agg(id ORDER BY position)
  FROM numbered
 GROUP BY notification_id, created_at

-- name: find_created
-- What was stored before under the ids or the idempotency keys of a batch. A statement of its
-- own: a new snapshot, since the one that met the conflict may not see the other's rows.
SELECT w.id, n.id, n.request_hash, n.created_at,
       (SELECT CAST(json_agg(json_build_object('id', d.id, 'channel', d.channel,
                                               'recipient', d.recipient) ORDER BY d.id) AS text)
          FROM delivery d
         WHERE d.notification_id = n.id AND d.step = 'root')
  FROM json_to_recordset(CAST(%(batch)s AS json)) AS w (
           id uuid, tenant_id bigint, idempotency_key text)
  CROSS JOIN LATERAL (
       SELECT * FROM notification WHERE id = w.id
       UNION ALL
       SELECT * FROM notification
        WHERE idempotency_key = w.idempotency_key AND tenant_id IS NOT DISTINCT FROM w.tenant_id
          AND id <> w.id) n

-- name: find_row_keys
-- Which row keys of a request are taken; asked only when its insert met one.
SELECT d.channel, d.row_key
  FROM json_to_recordset(CAST(%(batch)s AS json)) AS w (
           tenant_id bigint, channel text, row_key text)
  JOIN delivery d
    ON d.row_key = w.row_key AND d.channel = w.channel
   AND d.tenant_id IS NOT DISTINCT FROM w.tenant_id
