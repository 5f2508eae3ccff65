"""The slot of a key is the same in SQL and in Python."""

from __future__ import annotations

from allim.database.pool import Database
from allim.events.slots import SLOTS, slot_of


async def test_sql_and_python_agree_on_the_slot_of_a_key(database: Database) -> None:
    keys = [*(f"key-{number}" for number in range(500)), "", "주문-1", "😀", "a\\b", "\x01"]
    rows = await database.fetch(
        "SELECT key, outbox_slot(key) FROM unnest(%(keys)s::text[]) AS k (key)", {"keys": keys}
    )
    assert {key: slot_of(key) for key in keys} == dict(rows)
    assert {slot_of(key) for key in keys} == set(range(SLOTS))


async def test_a_message_without_a_key_takes_any_slot(database: Database) -> None:
    rows = await database.fetch("SELECT outbox_slot(NULL) FROM generate_series(1, 2000)")
    assert {slot for (slot,) in rows} == set(range(SLOTS))
