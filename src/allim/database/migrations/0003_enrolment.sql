-- What the enrolment sync knows, what it did, and what it told.

CREATE TABLE run_log (
    id                       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    category_id              bigint NOT NULL,
    trigger_type             text NOT NULL CHECK (trigger_type IN ('MANUAL', 'SCHEDULER', 'RETRY')),
    status                   text NOT NULL DEFAULT 'RUNNING'
        CHECK (status IN ('RUNNING', 'SUCCESS', 'FAILED')),
    -- enrolments seen
    total_records            integer NOT NULL DEFAULT 0,
    new_records              integer NOT NULL DEFAULT 0,
    changed_records          integer NOT NULL DEFAULT 0,
    missing_records          integer NOT NULL DEFAULT 0,
    created_alerts           integer NOT NULL DEFAULT 0,
    categories_processed     integer NOT NULL DEFAULT 0,
    courses_processed        integer NOT NULL DEFAULT 0,
    details_processed        integer NOT NULL DEFAULT 0,
    source_records_upserted  integer NOT NULL DEFAULT 0,
    failed_courses           integer NOT NULL DEFAULT 0,
    failed_details           integer NOT NULL DEFAULT 0,
    truncated_courses        integer NOT NULL DEFAULT 0,
    -- begins as the operators' SQL classifies it; see enrolment/lms/protocol.py
    error_message            text,
    worker                   text,
    started_at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at              timestamptz,
    created_at               timestamptz NOT NULL DEFAULT now(),
    updated_at               timestamptz NOT NULL DEFAULT now(),
    CHECK ((status = 'RUNNING') = (finished_at IS NULL))
) WITH (fillfactor = 70);

-- runs of one category: listed; runs that died; whether any ever succeeded
CREATE INDEX run_log_category ON run_log (category_id, id);
CREATE INDEX run_log_running ON run_log (category_id) WHERE status = 'RUNNING';
CREATE INDEX run_log_succeeded ON run_log (category_id) WHERE status = 'SUCCESS';
CREATE INDEX run_log_failed ON run_log (id) WHERE status = 'FAILED';

-- The last that was seen of each enrolment and each user.
CREATE TABLE source_record (
    source_type    text NOT NULL,
    source_id      text NOT NULL,
    category_id    bigint NOT NULL,
    course_id      text,
    course_name    text,
    user_id        text NOT NULL,
    user_name      text,
    status         text,
    status_msg     text,
    ds_date        timestamptz,
    gc_date        timestamptz,
    sjc_date       timestamptz,
    update_time    timestamptz,
    payload        jsonb NOT NULL,
    hash           bytea NOT NULL,
    revision       bigint NOT NULL CHECK (revision > 0),
    missing_since  timestamptz,
    run_id         bigint NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_type, source_id)
) WITH (fillfactor = 85);

-- who is known of a course and not missing; with the key itself, so that nothing else is read
CREATE INDEX source_record_present ON source_record (category_id, course_id, source_id)
    WHERE source_type = 'enrolment_status' AND missing_since IS NULL;

CREATE TABLE alert (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id           bigint NOT NULL,
    category_id      bigint NOT NULL,
    alert_type       text NOT NULL CHECK (alert_type IN ('NEW', 'CHANGED', 'FAILED')),
    severity         text NOT NULL CHECK (severity IN ('low', 'medium', 'high')),
    source_type      text NOT NULL,
    source_id        text NOT NULL,
    course_id        text,
    user_id          text,
    -- the record's; the run's id where it is about no record
    revision         bigint NOT NULL,
    error_group      text,
    title            text NOT NULL,
    message          text NOT NULL,
    old              jsonb,
    new              jsonb,
    occurrences      integer NOT NULL DEFAULT 1,
    notification_id  uuid NOT NULL,
    resolved         boolean NOT NULL DEFAULT false,
    resolved_at      timestamptz,
    resolved_by      text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CHECK (resolved = (resolved_at IS NOT NULL))
) WITH (fillfactor = 85);

-- A change is told once. Also: the last revision that was ever told of a record.
CREATE UNIQUE INDEX alert_told ON alert (source_type, source_id, revision, alert_type);
CREATE INDEX alert_category ON alert (category_id, id);
CREATE INDEX alert_created ON alert (created_at);
-- what waits for an operator
CREATE INDEX alert_open ON alert (severity, id) WHERE NOT resolved;
CREATE INDEX alert_failed ON alert (id) WHERE alert_type = 'FAILED';
-- failures that the next success resolves
CREATE INDEX alert_failing ON alert (category_id, error_group, id)
    WHERE alert_type = 'FAILED' AND NOT resolved;

-- Never goes back, so that a lock that was released and taken anew is another lock.
CREATE SEQUENCE job_lock_fence AS bigint;

CREATE TABLE job_lock (
    job_name         text PRIMARY KEY,
    locked_by        text NOT NULL,
    locked_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    lock_expires_at  timestamptz NOT NULL,
    run_id           bigint NOT NULL,
    fence            bigint NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    -- A key: who takes over changes it, and so waits for whoever holds FOR KEY SHARE on the
    -- row. Renewals leave it alone, and pass.
    CONSTRAINT job_lock_key UNIQUE (job_name, fence)
) WITH (fillfactor = 50);
