"""The statements of the inbox walk over what waits, never over what is finished."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from allim.database.pool import Database
from allim.messaging.receipts import SQL

FILL = """
INSERT INTO delivery (notification_id, channel, max_attempts, status, provider_id, sent_at)
SELECT gen_random_uuid(), 'SMS', 3, CASE WHEN n % 1000 = 0 THEN 'ACCEPTED' ELSE 'SUCCESS' END,
       'G' || n / 100, now() - interval '1 hour'
  FROM generate_series(1, 50000) AS n
"""
INBOX = """
INSERT INTO receipt_inbox (provider_id, due_at)
SELECT 'G' || n, now() + n * interval '1 second' FROM generate_series(1, 5000) AS n
"""
STATEMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "miss": ({"channels": ["SMS"], "patience": 60.0}, "delivery_unreceipted"),
    "take": ({"limit": 50, "pause": 60.0}, "receipt_inbox_due"),
    "waiting_in": ({"groups": ["G1", "G2"]}, "delivery_provider"),
    "done_with": ({"groups": ["G1", "G2"]}, "receipt_inbox_pkey"),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_uses_the_index_its_comment_names(database: Database, name: str) -> None:
    parameters, index = STATEMENTS[name]
    async with database.transaction() as tx:
        await tx.execute(FILL)
        await tx.execute(INBOX)
        await tx.execute("ANALYZE delivery")
        await tx.execute("ANALYZE receipt_inbox")
        statement = SQL[name]
        cursor = await tx.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        row = await cursor.fetchone()
    assert row is not None
    nodes = list(_nodes(row[0][0]["Plan"]))
    assert index in {node.get("Index Name") for node in nodes}
    of_deliveries = {n["Node Type"] for n in nodes if n.get("Relation Name") == "delivery"}
    assert "Seq Scan" not in of_deliveries


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
