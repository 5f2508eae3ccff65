-- What relays did, minute by minute, and which of them are alive.

-- A worker writes only rows of its own, each with the sums of its whole minute: nobody waits for
-- another's lock, and a write that is repeated counts nothing twice. After a day the minutes of all
-- workers become one row an hour, whose worker is ''.
CREATE TABLE metric_rollup (
    span          text NOT NULL CHECK (span IN ('minute', 'hour')),
    starts_at     timestamptz NOT NULL,
    box           text NOT NULL CHECK (box IN ('delivery', 'outbox')),
    -- a channel; of the outbox a topic
    channel       text NOT NULL,
    worker        text NOT NULL,
    -- came into the box; counted in the database, so it stands with the worker ''
    created       bigint NOT NULL DEFAULT 0,
    -- attempts that ended, by what became of them
    delivered     bigint NOT NULL DEFAULT 0,
    retried       bigint NOT NULL DEFAULT 0,
    dead          bigint NOT NULL DEFAULT 0,
    skipped       bigint NOT NULL DEFAULT 0,
    put_off       bigint NOT NULL DEFAULT 0,
    attempts      bigint GENERATED ALWAYS AS (delivered + retried + dead) STORED,
    errors        bigint GENERATED ALWAYS AS (retried + dead) STORED,
    -- calls that were made, how long they took together, and the slowest of them
    calls         bigint NOT NULL DEFAULT 0,
    call_seconds  double precision NOT NULL DEFAULT 0,
    slowest       double precision NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (span, starts_at, box, channel, worker)
) WITH (fillfactor = 50);

-- How far what came into a box has been counted. `next_id` was the last number that had been drawn
-- at `next_at`: what lies between is counted a little later, once its transactions have ended.
CREATE TABLE metric_mark (
    box         text PRIMARY KEY,
    last_id     bigint NOT NULL,
    next_id     bigint NOT NULL,
    next_at     timestamptz NOT NULL DEFAULT now(),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- What was there before is not counted.
INSERT INTO metric_mark (box, last_id, next_id)
SELECT 'delivery', last_value, last_value FROM delivery_id_seq WHERE is_called
UNION ALL SELECT 'delivery', 0, 0 FROM delivery_id_seq WHERE NOT is_called
UNION ALL SELECT 'outbox', last_value, last_value FROM outbox_seq WHERE is_called
UNION ALL SELECT 'outbox', 0, 0 FROM outbox_seq WHERE NOT is_called;

-- Processes with relays in them; updated_at is the last beat. No lease and no fence: only shown.
CREATE TABLE relay_beat (
    worker      text PRIMARY KEY,
    -- the channels that it delivers for; `events` where it publishes events
    lanes       text[] NOT NULL,
    -- slots of the outbox that it holds
    slots       integer NOT NULL DEFAULT 0,
    -- what it leaves alone now: {"lane", "target", "since"}
    breakers    jsonb NOT NULL DEFAULT '[]',
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
