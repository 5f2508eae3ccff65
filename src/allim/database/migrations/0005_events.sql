-- The event outbox: events that wait to be published, who publishes them, and what was consumed.

CREATE SEQUENCE outbox_seq AS bigint CACHE 1;

-- Which of the 64 slots the messages of a key go through; events/slots.py says the same in
-- Python. A message without a key takes any.
CREATE FUNCTION outbox_slot(key text) RETURNS smallint LANGUAGE sql VOLATILE PARALLEL SAFE
    RETURN CASE WHEN key IS NULL THEN floor(random() * 64)::smallint
                ELSE (get_byte(sha256(convert_to(key, 'UTF8')), 0) & 63)::smallint END;

-- What a relay changes stands last and together: an update that stays on its page then writes only
-- that to the log. Hence also the room that is left on each page.
CREATE TABLE outbox_messages (
    id                uuid PRIMARY KEY,
    payload           bytea NOT NULL,
    topic             varchar(255) NOT NULL CHECK (topic <> ''),
    message_key       text,
    headers           jsonb NOT NULL DEFAULT '{}',
    content_type      text,
    -- which key of the ring the payload is encrypted with; null where it is not
    encryption_key    text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    -- Drawn after the transaction id: reading follows transactions that are in progress, and
    -- must never meet a number whose transaction it could not see.
    seq               bigint NOT NULL DEFAULT
        CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('outbox_seq') END,
    slot              smallint NOT NULL CHECK (slot BETWEEN 0 AND 63),
    -- waits behind a message of its key that failed, or is that message
    parked            boolean NOT NULL DEFAULT false,
    retry_count       integer NOT NULL DEFAULT 0,
    status            varchar(50) NOT NULL DEFAULT 'PENDING'
        CHECK (status IN ('PENDING', 'SENT', 'FAILED', 'DEAD', 'DISCARDED')),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    last_attempt_time timestamptz,
    -- The due time of a blocked key: of every key with parked messages at least one has this set,
    -- or is DEAD; then only an operator can let the key go on.
    next_retry_at     timestamptz,
    version           bigint NOT NULL DEFAULT 0,
    error_message     text,
    CHECK (next_retry_at IS NULL OR parked),
    CHECK (status <> 'FAILED' OR parked)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);

ALTER SEQUENCE outbox_seq OWNED BY outbox_messages.seq;

-- The hot path: finished rows are in none of these.

-- fetch: what may leave, in the order of each slot
CREATE INDEX outbox_ready ON outbox_messages (slot, seq) WHERE status = 'PENDING' AND NOT parked;
-- drain: the messages of a blocked key, in order
CREATE INDEX outbox_parked ON outbox_messages (slot, topic, message_key, seq) WHERE parked;
-- blocked keys, and when each is due
CREATE INDEX outbox_due ON outbox_messages (slot, next_retry_at)
    WHERE parked AND (next_retry_at IS NOT NULL OR status = 'DEAD');
-- figures, and what an operator looks for
CREATE INDEX outbox_unsent ON outbox_messages (status, seq) WHERE status IN ('FAILED', 'DEAD');
-- prune, and replay by time: next to nothing to maintain
CREATE INDEX outbox_created ON outbox_messages USING brin (created_at) WITH (pages_per_range = 32);

-- One row for each header, as the outbox document has it; one message still costs one row.
CREATE VIEW outbox_message_headers AS
    SELECT message.id AS outbox_message_id, header.key::varchar(255) AS header_key,
           header.value AS header_value
      FROM outbox_messages AS message CROSS JOIN LATERAL jsonb_each_text(message.headers) AS header;

-- An incarnation of a relay of events: its lease is the fence of everything it writes.
CREATE TABLE relay (
    id          text PRIMARY KEY,
    lease_until timestamptz NOT NULL,
    retired     boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE relay_slot (
    slot        smallint PRIMARY KEY CHECK (slot BETWEEN 0 AND 63),
    relay_id    text REFERENCES relay (id) ON DELETE SET NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

INSERT INTO relay_slot (slot) SELECT generate_series(0, 63);

-- Events that a consumer has taken in, written in the transaction of what it did with them.
CREATE TABLE inbox (
    consumer    text NOT NULL,
    event_id    uuid NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);

CREATE INDEX inbox_created ON inbox USING brin (created_at) WITH (pages_per_range = 32);
