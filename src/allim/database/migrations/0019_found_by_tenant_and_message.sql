-- What tenants and operators look up, found by an index.

-- the suppressions of one tenant, newest first
CREATE INDEX suppression_tenant ON suppression (tenant_id, id) WHERE tenant_id IS NOT NULL;

-- the delivery that a provider knows by its own message id
CREATE INDEX delivery_provider_message ON delivery (provider_message_id)
    WHERE provider_message_id IS NOT NULL;
