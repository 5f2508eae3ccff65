-- Schedules, and every time that one of them fired.

CREATE TABLE schedule (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           text NOT NULL UNIQUE,
    job            text NOT NULL,
    parameters     jsonb NOT NULL DEFAULT '{}',
    cron           text NOT NULL,
    timezone       text NOT NULL DEFAULT 'Asia/Seoul',
    enabled        boolean NOT NULL DEFAULT true,
    -- Slots up to here have been decided: fired, skipped or missed. A schedule that is made,
    -- changed or resumed begins with what comes after.
    decided_until  timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

CREATE TABLE schedule_fire (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schedule_id    bigint NOT NULL REFERENCES schedule ON DELETE CASCADE,
    -- The slot; for what somebody asked for, the moment of asking.
    due_at         timestamptz NOT NULL,
    cause          text NOT NULL CHECK (cause IN ('slot', 'request')),
    status         text NOT NULL CHECK (status IN (
        'QUEUED', 'RUNNING', 'SUCCESS', 'FAILED', 'SKIPPED', 'MISSED')),
    run_id         bigint,
    error          text,
    worker         text,
    attempts       integer NOT NULL DEFAULT 0,
    claim_token    uuid,
    lease_until    timestamptz,
    started_at     timestamptz,
    finished_at    timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    -- No slot fires twice, whoever claims it; also the newest fire of a schedule.
    UNIQUE (schedule_id, due_at),
    CHECK ((status IN ('QUEUED', 'RUNNING')) = (lease_until IS NOT NULL)),
    CHECK ((status IN ('QUEUED', 'RUNNING')) = (finished_at IS NULL))
) WITH (fillfactor = 70);

-- what is under way: to be taken over, and whether the next slot must be skipped
CREATE INDEX schedule_fire_open ON schedule_fire (schedule_id) WHERE status IN ('QUEUED', 'RUNNING');
-- listing a schedule's fires, newest first
CREATE INDEX schedule_fire_listing ON schedule_fire (schedule_id, id);
-- pruning
CREATE INDEX schedule_fire_old ON schedule_fire (due_at);
