-- Notifications, their deliveries, and every attempt.

CREATE TABLE notification (
    id               uuid PRIMARY KEY,
    tenant_id        bigint,
    source           text NOT NULL,
    type             text NOT NULL,
    title            text,
    message          text,
    data             jsonb NOT NULL DEFAULT '{}',
    priority         smallint NOT NULL DEFAULT 1 CHECK (priority BETWEEN 0 AND 2),
    idempotency_key  text,
    request_hash     bytea,
    scheduled_at     timestamptz,
    expires_at       timestamptz,
    canceled_at      timestamptz,
    traceparent      text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 90);

-- One answer per key and tenant; NULLS NOT DISTINCT lets keys work without tenants.
CREATE UNIQUE INDEX notification_idempotency ON notification (idempotency_key, tenant_id)
    NULLS NOT DISTINCT WHERE idempotency_key IS NOT NULL;

-- listing what one tenant sent
CREATE INDEX notification_tenant ON notification (tenant_id, id) WHERE tenant_id IS NOT NULL;

CREATE SEQUENCE delivery_id_seq AS bigint CACHE 1;

CREATE TABLE delivery (
    -- Drawn after the transaction id: the claim's low-water mark follows transactions that
    -- are in progress, and must never meet an id whose transaction it could not see.
    id                  bigint PRIMARY KEY DEFAULT
        CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('delivery_id_seq') END,
    notification_id     uuid NOT NULL,
    parent_id           bigint,
    step                text NOT NULL DEFAULT 'root' CHECK (step IN ('root', 'then', 'fallback')),
    tenant_id           bigint,
    channel             text NOT NULL,
    recipient           text,
    template_code       text,
    payload             jsonb NOT NULL DEFAULT '{}',
    row_key             text,
    priority            smallint NOT NULL DEFAULT 1 CHECK (priority BETWEEN 0 AND 2),
    status              text NOT NULL DEFAULT 'PENDING' CHECK (status IN (
        'PENDING', 'PROCESSING', 'SUCCESS', 'ACCEPTED', 'FAILED', 'DEAD',
        'SKIPPED', 'HELD', 'CANCELED', 'EXPIRED')),
    attempts            integer NOT NULL DEFAULT 0,
    retry_count         integer NOT NULL DEFAULT 0,
    rescue_count        integer NOT NULL DEFAULT 0,
    max_attempts        integer NOT NULL CHECK (max_attempts > 0),
    next_retry_at       timestamptz,
    expires_at          timestamptz,
    last_error          text,
    error_code          text,
    lease_owner         text,
    lease_until         timestamptz,
    claim_token         uuid,
    provider_id         text,
    provider_message_id text,
    receipt_status      text,
    receipt_at          timestamptz,
    then_steps          jsonb,
    fallback_steps      jsonb,
    superseded_by       bigint,
    guard               jsonb,
    sent_at             timestamptz,
    canceled_at         timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    CHECK ((status = 'PROCESSING') = (claim_token IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);

ALTER SEQUENCE delivery_id_seq OWNED BY delivery.id;

-- The hot path: each index below covers unfinished rows only, so finished ones cost nothing.

-- claim: never-touched work, lowest id first within a channel and priority. `id + 0`, so that
-- the planner can't take the primary key for it and walk over everything that is finished.
CREATE INDEX delivery_new ON delivery (channel, priority, (id + 0))
    WHERE status = 'PENDING' AND next_retry_at IS NULL;
-- claim: timed work (retries, snoozes, schedules, replays), longest due first
CREATE INDEX delivery_timed ON delivery (channel, next_retry_at)
    WHERE status IN ('PENDING', 'FAILED') AND next_retry_at IS NOT NULL;
-- rescue: leases that ran out
CREATE INDEX delivery_leased ON delivery (lease_until) WHERE status = 'PROCESSING';
-- expire
CREATE INDEX delivery_expiring ON delivery (expires_at)
    WHERE status IN ('PENDING', 'FAILED') AND expires_at IS NOT NULL;
-- dead letters and what else waits for an operator
CREATE INDEX delivery_parked ON delivery (status, channel, id)
    WHERE status IN ('DEAD', 'HELD', 'SKIPPED', 'FAILED', 'ACCEPTED');
-- receipts that never came
CREATE INDEX delivery_unreceipted ON delivery (sent_at) WHERE status = 'ACCEPTED';

CREATE INDEX delivery_notification ON delivery (notification_id);
-- listing what one tenant sent
CREATE INDEX delivery_tenant ON delivery (tenant_id, id) WHERE tenant_id IS NOT NULL;
-- Not while in flight: a claim then need not write here. What is in flight stands in
-- delivery_leased, so a search by recipient asks for both.
CREATE INDEX delivery_recipient ON delivery (recipient, id) WHERE status <> 'PROCESSING';
CREATE INDEX delivery_parent ON delivery (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX delivery_provider ON delivery (provider_id) WHERE provider_id IS NOT NULL;
CREATE UNIQUE INDEX delivery_row_key ON delivery (row_key, channel, tenant_id)
    NULLS NOT DISTINCT WHERE row_key IS NOT NULL;

-- The status of a notification, from its deliveries that nothing superseded: `states` are
-- their distinct states, `attempted` whether any was ever tried. The first rule that fits.
-- One expression, so that it is folded into the query that asks, and its snapshot.
CREATE FUNCTION notification_status(states text[], attempted boolean) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN states = ARRAY['CANCELED'] THEN 'CANCELED'
        WHEN states = ARRAY['EXPIRED'] THEN 'EXPIRED'
        WHEN states <@ ARRAY['PENDING'] AND NOT attempted THEN 'PENDING'
        WHEN states && ARRAY['PENDING', 'PROCESSING', 'FAILED', 'ACCEPTED', 'HELD'] THEN 'PROCESSING'
        WHEN states = ARRAY['SKIPPED'] THEN 'SKIPPED'
        WHEN NOT states @> ARRAY['SUCCESS'] THEN 'FAILED'
        WHEN states && ARRAY['DEAD', 'CANCELED', 'EXPIRED'] THEN 'PARTIALLY_FAILED'
        ELSE 'COMPLETED'
    END;

CREATE TABLE delivery_attempt (
    delivery_id   bigint NOT NULL,
    attempt_no    integer NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,
    outcome       text,
    http_status   integer,
    error_code    text,
    error         text,
    provider_id   text,
    receipt_status text,
    response      text,
    worker        text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (delivery_id, attempt_no)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);

-- No foreign keys on these two: their checks cost a third of an insert, and a check planned while
-- the table was small walks over all of it until the next ANALYZE. Deliveries are only written
-- beside their notification; this keeps it so when notifications are deleted.
CREATE FUNCTION notification_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH gone AS (
        DELETE FROM delivery WHERE notification_id IN (SELECT id FROM deleted) RETURNING id)
    DELETE FROM delivery_attempt WHERE delivery_id IN (SELECT id FROM gone);
    RETURN NULL;
END $$;

CREATE TRIGGER notification_deleted AFTER DELETE ON notification
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION notification_deleted();

-- Targets that said they are gone (HTTP 410), and signing secrets of webhook targets.
CREATE TABLE endpoint (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id        bigint,
    channel          text NOT NULL,
    url              text NOT NULL,
    secrets          text[] NOT NULL DEFAULT '{}',
    disabled_at      timestamptz,
    disabled_reason  text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (tenant_id, channel, url)
);

-- One row per rated target: when its next free place in line is.
CREATE TABLE rate_limit (
    key         text PRIMARY KEY,
    next_free   timestamptz NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE api_key (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    key_hash    bytea NOT NULL UNIQUE,
    tenant_id   bigint,
    scopes      text[] NOT NULL CHECK (scopes <@ ARRAY['send', 'read', 'operate', 'admin']
                                       AND cardinality(scopes) > 0),
    revoked_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
