-- Replays: dead letters sent again by a filter, step by step, and who asked for what.

CREATE TABLE replay_job (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id        bigint,
    status           text NOT NULL DEFAULT 'RUNNING'
        CHECK (status IN ('RUNNING', 'PAUSED', 'COMPLETED', 'CANCELED')),
    -- The filter as it was asked for, to be shown; the columns below are what steps run by.
    filter           jsonb NOT NULL,
    statuses         text[] NOT NULL,
    channels         text[] NOT NULL,
    -- Every delivery is looked at once, in the order of ids, and none that is younger than the
    -- job: what dies again is not sent again by the same job.
    last_id          bigint NOT NULL DEFAULT 0,
    up_to            bigint NOT NULL,
    rate_per_second  double precision CHECK (rate_per_second > 0),
    next_step_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    total            bigint NOT NULL,
    replayed         bigint NOT NULL DEFAULT 0,
    skipped          bigint NOT NULL DEFAULT 0,
    reason           text NOT NULL,
    requested_by     text NOT NULL,
    finished_at      timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CHECK ((finished_at IS NOT NULL) = (status IN ('COMPLETED', 'CANCELED')))
);

-- the job whose next step is due first
CREATE INDEX replay_job_due ON replay_job (next_step_at) WHERE status = 'RUNNING';

-- What people did, with who and when; never changed, never deleted by us.
CREATE TABLE audit_log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor       text NOT NULL,
    action      text NOT NULL,
    subject     text NOT NULL,
    tenant_id   bigint,
    detail      jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX audit_log_subject ON audit_log (subject, id);
