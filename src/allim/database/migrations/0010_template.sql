-- Templates: versions are only ever added, so that what was sent can be read again.

CREATE TABLE template (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- null: for every tenant that has none of its own
    tenant_id       bigint,
    code            text NOT NULL,
    channel         text NOT NULL,
    -- a language tag in small letters; empty: for whoever asks for no language that is there
    language        text NOT NULL DEFAULT '',
    version         integer NOT NULL CHECK (version > 0),
    subject         text,
    body            text,
    html            text,
    blocks          text,
    -- of channel and texts: what a process has compiled it need not read again
    digest          text NOT NULL,
    description     text,
    created_by      text NOT NULL,
    deactivated_at  timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(subject, body, html, blocks) > 0)
);

-- finding what a delivery names: the newest version is the last one of its run
CREATE UNIQUE INDEX template_version ON template (code, channel, tenant_id, language, version)
    NULLS NOT DISTINCT;
