-- What was last told of each alert that Alertmanager or Grafana brought.

CREATE TABLE ingest_alert (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    bigint,
    source       text NOT NULL CHECK (source IN ('alertmanager', 'grafana')),
    -- The sender's receiver (and organisation): each of them is told by itself.
    scope        text NOT NULL,
    fingerprint  text NOT NULL,
    status       text NOT NULL CHECK (status IN ('firing', 'resolved')),
    starts_at    timestamptz NOT NULL,
    told_at      timestamptz NOT NULL,
    times_told   integer NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (fingerprint, source, scope, tenant_id)
) WITH (fillfactor = 80);

-- forgetting what was told long ago
CREATE INDEX ingest_alert_told ON ingest_alert (told_at);
