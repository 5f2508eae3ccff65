-- Texts that are paid for: tenants and their ledger, opt-outs, cancelled reservations, and what
-- of the queue came to nothing.

CREATE TABLE tenant (
    id                bigint PRIMARY KEY CHECK (id > 0),
    name              text NOT NULL,
    -- KRW. Always the sum of the tenant's ledger: both are written in one transaction.
    balance           bigint NOT NULL DEFAULT 0 CHECK (balance >= 0),
    kakao_pf_id       text,
    sender            text,
    low_balance_krw   bigint CHECK (low_balance_krw >= 0),
    warned_at         timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE SEQUENCE tenant_ledger_id_seq AS bigint CACHE 1;

-- One row per movement of money. No foreign key (see docs/decisions/0005): rows are only written
-- while the tenant's row is locked.
CREATE TABLE tenant_ledger (
    id               bigint PRIMARY KEY DEFAULT nextval('tenant_ledger_id_seq'),
    tenant_id        bigint NOT NULL,
    kind             text NOT NULL CHECK (kind IN ('opening', 'credit', 'debit', 'refund')),
    amount           bigint NOT NULL,
    balance_after    bigint NOT NULL CHECK (balance_after >= 0),
    delivery_id      bigint,
    attempt_no       integer,
    message_kind     text,
    idempotency_key  text,
    note             text,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (CASE kind WHEN 'debit' THEN amount < 0 WHEN 'refund' THEN amount > 0 ELSE true END),
    CHECK ((kind IN ('debit', 'refund')) = (delivery_id IS NOT NULL)),
    CHECK ((delivery_id IS NULL) = (attempt_no IS NULL))
);

ALTER SEQUENCE tenant_ledger_id_seq OWNED BY tenant_ledger.id;

-- An attempt is paid for once, and its money given back once.
CREATE UNIQUE INDEX tenant_ledger_attempt ON tenant_ledger (delivery_id, attempt_no, kind)
    WHERE delivery_id IS NOT NULL;
CREATE UNIQUE INDEX tenant_ledger_key ON tenant_ledger (tenant_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
-- the statement of one tenant, in the order in which its balance changed
CREATE INDEX tenant_ledger_statement ON tenant_ledger (tenant_id, id);

CREATE FUNCTION tenant_ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'tenant_ledger is append-only: write a row that corrects it';
END $$;

CREATE TRIGGER tenant_ledger_is_append_only BEFORE UPDATE OR DELETE ON tenant_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION tenant_ledger_is_append_only();

-- Debits of deliveries that wait to be sent again, or for an operator: the next attempt goes on
-- with them. Nearly always empty.
CREATE TABLE tenant_hold (
    delivery_id  bigint PRIMARY KEY,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

-- Whoever must not be written to; no tenant means: by nobody.
CREATE TABLE suppression (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       bigint,
    recipient_kind  text NOT NULL,
    recipient       text NOT NULL,
    reason          text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (recipient, recipient_kind, tenant_id)
);

-- No tenant means: whichever tenant's it is.
CREATE TABLE reservation_cancellation (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       bigint,
    reservation_id  text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (reservation_id, tenant_id)
);

-- What is not yet done for a reservation.
CREATE INDEX delivery_reservation ON delivery ((guard ->> 'reservation_id'))
    WHERE guard IS NOT NULL AND status IN ('PENDING', 'FAILED', 'PROCESSING');

-- Deliveries that died, to be copied to the dead-letter queue that their job's queue has.
CREATE TABLE dead_letter_copy (
    delivery_id  bigint NOT NULL,
    attempt_no   integer NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (delivery_id, attempt_no)
);

-- Jobs of the queue that could not become a notification, and why: the queue's own redrive moves
-- them to the dead letters without a word.
CREATE TABLE refused_job (
    message_id  text PRIMARY KEY,
    job_id      text,
    tenant_id   bigint,
    recipient   text,
    reason      text NOT NULL,
    receives    integer NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX refused_job_recipient ON refused_job (recipient, created_at);
