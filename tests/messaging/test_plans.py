"""What tenants and operators look up is found by an index, whatever the planner was told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

import pytest

from allim.database.pool import Database
from allim.messaging.suppression import _listing
from allim.messaging.tracing import SQL as TRACING
from tests.hub.engine.test_plans import explain, found

SUPPRESSIONS = """
INSERT INTO suppression (tenant_id, recipient_kind, recipient)
SELECT CASE WHEN n % 3 = 0 THEN NULL WHEN n % 500 = 1 THEN 7 ELSE 8 END, 'phone', 'r' || n
  FROM generate_series(1, 30000) AS n
"""
DELIVERIES = """
INSERT INTO delivery (notification_id, channel, max_attempts, status, recipient, provider_id,
                      provider_message_id)
SELECT gen_random_uuid(), 'SMS', 3, 'SUCCESS', 'r' || n % 1000, 'G' || n / 100, 'M' || n
  FROM generate_series(1, 30000) AS n
"""
PAGE = {"before": None, "limit": 51}
TRACE = {"recipients": ["none"], "tenant": None, "limit": 50}
Asked = tuple[LiteralString, Mapping[str, Any], str, int]
ASKED: Mapping[str, Asked] = {
    "a tenant's list": (
        _listing(7, None),
        {**PAGE, "tenant": 7, "recipient": None},
        "suppression_tenant",
        80,
    ),
    "an address": (
        _listing(None, "r9"),
        {**PAGE, "tenant": None, "recipient": "r9"},
        "suppression_recipient",
        10,
    ),
    "an address for a tenant": (
        _listing(7, "r9"),
        {**PAGE, "tenant": 7, "recipient": "r9"},
        "suppression_recipient",
        10,
    ),
    "a message": (TRACING["trace"], {**TRACE, "word": "M7"}, "delivery_provider_message", 60),
    "a group": (TRACING["trace"], {**TRACE, "word": "G7"}, "delivery_provider", 1200),
}


@pytest.mark.parametrize("generic", [True, False], ids=["generic plan", "custom plan"])
@pytest.mark.parametrize("name", ASKED)
async def test_what_is_looked_up_is_found_by_its_index(
    database: Database, name: str, generic: bool
) -> None:
    statement, parameters, index, most = ASKED[name]
    async with database.transaction() as tx:
        await tx.execute(SUPPRESSIONS)
        await tx.execute(DELIVERIES)
        await tx.execute("ANALYZE suppression")
        await tx.execute("ANALYZE delivery")
        if generic:
            await tx.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        plan = await explain(
            tx, statement, parameters, generic=generic, options="ANALYZE, BUFFERS, FORMAT JSON"
        )
    assert index in set(found(plan, "Index Name"))
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert pages <= most, (pages, sorted(set(found(plan, "Index Name"))))
