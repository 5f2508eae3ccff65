-- Courses that lost almost everybody at once in the last listing of them. Nobody is reported
-- missing by that unless the next run is told the same.
CREATE TABLE doubted_course (
    category_id  bigint NOT NULL,
    course_id    text NOT NULL,
    -- the run that was told so first
    run_id       bigint NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (category_id, course_id)
);
