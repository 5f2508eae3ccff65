-- Groups at a provider that are to be asked what became of their messages: those a webhook spoke
-- of, and those of which nothing was heard for a while. A webhook's body proves nothing, so no
-- more of it is kept than where to look. A row goes when nothing of its group waits any more.
CREATE TABLE receipt_inbox (
    provider_id  text PRIMARY KEY,
    due_at       timestamptz NOT NULL,
    asked        integer NOT NULL DEFAULT 0,
    asked_at     timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE INDEX receipt_inbox_due ON receipt_inbox (due_at);
