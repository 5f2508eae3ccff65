-- When a channel keeps still: hours in which nothing is sent, and digests of what comes too often.

-- One window a row. Deferred, never dropped: what is due within one waits for its end.
CREATE TABLE quiet_hours (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- null: every tenant; every channel
    tenant_id     bigint,
    channel       text,
    begins        time NOT NULL,
    -- not after `begins`: on the day after
    ends          time NOT NULL,
    time_zone     text NOT NULL,
    -- ISO weekdays on which a window begins
    days          smallint[] NOT NULL
        CHECK (cardinality(days) > 0 AND days <@ ARRAY[1, 2, 3, 4, 5, 6, 7]::smallint[]),
    -- deliveries of this priority's rank or a higher one go at any hour; null: none
    exempt        smallint CHECK (exempt BETWEEN 0 AND 2),
    reason        text,
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- One row per key that messages are gathered by: when the next may go, and whose it is.
CREATE TABLE digest (
    key         text PRIMARY KEY,
    next_at     timestamptz NOT NULL,
    carrier_id  bigint,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Deliveries that wait for the next message of their key; of a carrier, once one has taken them.
CREATE TABLE digest_member (
    delivery_id  bigint PRIMARY KEY,
    key          text NOT NULL,
    carrier_id   bigint,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

-- what waits for a key, in order; what a carrier has with it
CREATE INDEX digest_member_key ON digest_member (key, delivery_id);
CREATE INDEX digest_member_carrier ON digest_member (carrier_id) WHERE carrier_id IS NOT NULL;
