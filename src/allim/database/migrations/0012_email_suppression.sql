-- Suppression of addresses of every kind, and of one list of an address.

-- list: only what belongs to that list; none means: everything. detail: the words of a provider.
-- delivery_id: the delivery it was learnt from.
ALTER TABLE suppression
    ADD COLUMN list text,
    ADD COLUMN detail text,
    ADD COLUMN delivery_id bigint;

ALTER TABLE suppression
    DROP CONSTRAINT suppression_recipient_recipient_kind_tenant_id_key,
    ADD CONSTRAINT suppression_recipient
        UNIQUE NULLS NOT DISTINCT (recipient, recipient_kind, tenant_id, list);
