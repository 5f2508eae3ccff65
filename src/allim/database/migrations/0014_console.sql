-- The operators' console: who is logged in, and how an action on record ended.

-- The cookie and the key are known by their SHA-256 only.
CREATE TABLE console_session (
    token_hash  bytea PRIMARY KEY,
    key_hash    bytea NOT NULL,
    expires_at  timestamptz NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- 'begun' and never ended: the process died in between, and what became of it is not known.
ALTER TABLE audit_log ADD COLUMN outcome text NOT NULL DEFAULT 'done'
    CHECK (outcome IN ('begun', 'done', 'refused'));
