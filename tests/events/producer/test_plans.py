"""What operators ask for does not read what has left, however much that is."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest

from allim.events.reading import _composed

FILL = """
INSERT INTO outbox_messages (id, payload, topic, message_key, slot, status, parked, next_retry_at)
SELECT gen_random_uuid(), 'x', 'orders', 'k' || g % 1000, g % 64,
       CASE WHEN g % 2000 = 0 THEN 'FAILED' ELSE 'SENT' END, g % 2000 = 0,
       CASE WHEN g % 2000 = 0 THEN now() END
  FROM generate_series(1, 20000) g
"""
ANY: dict[str, Any] = {
    "before": None, "limit": 51, "topic": None, "after_topic": None, "after_key": None,
    "most": 100, "after": None, "scan": 500,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "indexes"),
    [("failed_events", ["outbox_unsent"]), ("blocked_keys", ["outbox_due", "outbox_parked"]),
     ("events", ["outbox_messages_pkey"])],
)  # fmt: skip
def test_indexes_are_used(database_url: str, name: str, indexes: list[LiteralString]) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(FILL)
        connection.execute("VACUUM ANALYZE outbox_messages")
        plan = "\n".join(
            line for (line,) in connection.execute("EXPLAIN " + _composed(name), ANY).fetchall()
        )
    for index in indexes:
        assert index in plan, plan
    assert "Seq Scan on outbox_messages" not in plan
