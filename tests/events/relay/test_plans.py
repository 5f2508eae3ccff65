"""Hot statements walk their partial indexes, whatever the planner thinks of the table."""

from __future__ import annotations

import pytest

from allim.database.pool import Database
from allim.events.relaying.box import STATEMENTS

FILL = """
INSERT INTO outbox_messages (id, topic, message_key, slot, payload, status)
SELECT gen_random_uuid(), 'orders', key, outbox_slot(key), 'x', 'SENT'
  FROM (SELECT 'k' || n AS key FROM generate_series(1, 30000) AS n) AS k RETURNING 1"""
SLOTS = list(range(64))


@pytest.mark.parametrize(
    ("statement", "parameters", "index"),
    [
        (
            "fetch",
            {"slots": SLOTS, "marks": [0] * 64, "limit": 1000, "each": 50},
            "outbox_ready",
        ),
        ("settle_sent", {"relay": "r", "slots": [1] * 500, "seqs": [*range(500)]}, "outbox_ready"),
        ("due", {"slots": SLOTS, "limit": 1000, "without": ["other"]}, "outbox_due"),
        ("blocked", {"slots": SLOTS}, "outbox_due"),
    ],
)
async def test_hot_statements_use_their_index_when_only_sent_rows_were_analysed(
    database: Database, statement: str, parameters: dict[str, object], index: str
) -> None:
    await database.fetch(FILL)
    async with database.connection() as connection:
        await connection.execute("ANALYZE outbox_messages")
    async with database.transaction(pinned=True) as tx:
        plan = await tx.execute(
            "EXPLAIN (ANALYZE, BUFFERS) " + STATEMENTS[statement], parameters, prepare=False
        )
        lines = [line for (line,) in await plan.fetchall()]
    text = "\n".join(lines)
    assert f"using {index} on outbox_messages" in text, text
    assert "Seq Scan on outbox_messages" not in text, text
    buffers = sum(
        int(part.partition("=")[2])
        for part in lines[1].split()
        if part.startswith(("hit=", "read="))
    )
    assert buffers < 1000, f"passes over what was sent: {text}"
