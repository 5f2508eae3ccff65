-- name: endpoint_columns
-- A fragment: one endpoint `e` as EndpointView has it.
json_build_object('id', e.id, 'tenant_id', e.tenant_id, 'channel', e.channel, 'url', e.url,
    'secrets', cardinality(e.secrets), 'disabled_at', e.disabled_at,
    'disabled_reason', e.disabled_reason, 'created_at', e.created_at, 'updated_at', e.updated_at)

-- name: create_endpoint
-- A target that was only disabled so far has a row but no secret; it gets one.
INSERT INTO endpoint AS e (tenant_id, channel, url, secrets)
VALUES (%(tenant)s, %(channel)s, %(url)s, ARRAY[%(secret)s])
    ON CONFLICT (tenant_id, channel, url) DO UPDATE
   SET secrets = excluded.secrets, updated_at = now()
 WHERE e.secrets = '{}'
RETURNING {endpoint}

-- name: list_endpoints
SELECT {endpoint} FROM endpoint e
 WHERE (CAST(%(tenant)s AS bigint) IS NULL OR e.tenant_id = %(tenant)s)
   AND (CAST(%(before)s AS bigint) IS NULL OR e.id < %(before)s)
 ORDER BY e.id DESC
 LIMIT %(limit)s

-- name: disabled_endpoints
-- Those of all tenants, the last first, and how many there are.
SELECT {endpoint}, count(*) OVER ()
  FROM endpoint e
 WHERE e.disabled_at IS NOT NULL
 ORDER BY e.disabled_at DESC, e.id DESC
 LIMIT %(limit)s

-- name: rotate_endpoint
-- The newest first; of the old ones only the last stays.
UPDATE endpoint e SET secrets = ARRAY[%(secret)s] || e.secrets[1:1], updated_at = now()
 WHERE e.id = %(id)s AND (CAST(%(tenant)s AS bigint) IS NULL OR e.tenant_id = %(tenant)s)
RETURNING {endpoint}

-- name: retire_endpoint_secret
UPDATE endpoint e SET secrets = e.secrets[1:1], updated_at = now()
 WHERE e.id = %(id)s AND (CAST(%(tenant)s AS bigint) IS NULL OR e.tenant_id = %(tenant)s)
RETURNING {endpoint}

-- name: enable_endpoint
UPDATE endpoint e SET disabled_at = NULL, disabled_reason = NULL, updated_at = now()
 WHERE e.id = %(id)s AND (CAST(%(tenant)s AS bigint) IS NULL OR e.tenant_id = %(tenant)s)
RETURNING {endpoint}

-- name: look_up
-- By the unique index, one probe a target.
SELECT w.tenant_id, w.channel, w.url, e.secrets, e.disabled_at IS NOT NULL, e.disabled_reason
  FROM unnest(%(tenants)s::bigint[], %(channels)s::text[], %(urls)s::text[])
       AS w (tenant_id, channel, url)
  JOIN endpoint e ON e.channel = w.channel AND e.url = w.url
                 AND e.tenant_id IS NOT DISTINCT FROM w.tenant_id

-- name: disable
-- In the transaction that settles the delivery; sorted, so that two of them cannot deadlock.
INSERT INTO endpoint AS e (tenant_id, channel, url, disabled_at, disabled_reason)
SELECT w.tenant_id, w.channel, w.url, now(), w.reason
  FROM unnest(%(tenants)s::bigint[], %(channels)s::text[], %(urls)s::text[], %(reasons)s::text[])
       AS w (tenant_id, channel, url, reason)
 ORDER BY w.channel, w.url, w.tenant_id
    ON CONFLICT (tenant_id, channel, url) DO UPDATE
   SET disabled_at = now(), disabled_reason = excluded.disabled_reason, updated_at = now()
 WHERE e.disabled_at IS NULL
