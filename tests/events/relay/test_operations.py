"""Replay, discard and prune."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from allim.base.tasks import cancel_and_wait
from allim.composition.publishing import _prune
from allim.database.pool import Database
from allim.events.relaying.operations import OutboxOperator, Selection
from tests.events.relay.conftest import REFUSED, RETRY, Outbox, World, relaying


def ids(rows: Sequence[dict[str, Any]], *payloads: str) -> list[UUID]:
    return [row["id"] for row in rows if row["text"] in payloads]


async def test_a_dead_message_is_replayed_with_all_its_retries(
    database: Database, outbox: Outbox, world: World
) -> None:
    operator = OutboxOperator(database)
    world.refuse("a1", *[RETRY] * 3)
    await outbox.put(("a", "a1"), ("a", "a2"))
    async with relaying(database, world, max_retries=1):
        await outbox.until_all_are("SENT", "DEAD")
        (dead,) = await operator.chosen(Selection(topic="orders"))
        assert await operator.replay([dead]) == 1
        rows = await outbox.until_all_are("SENT")
    assert (rows[0]["retry_count"], rows[0]["error_message"]) == (1, "broken: it broke")
    assert world.by_key() == {"a": ["a2", "a1"]}


async def test_what_was_sent_is_replayed_by_key_and_time_in_order(
    database: Database, outbox: Outbox, world: World
) -> None:
    operator = OutboxOperator(database)
    before = datetime.now(UTC) - timedelta(hours=1)
    events: list[tuple[str | None, str]] = [
        (key, f"{key}{number:02}") for number in range(60) for key in "ab"
    ]
    await outbox.put(*events)
    async with relaying(database, world):
        rows = await outbox.until_all_are("SENT")
        world.came.clear()
        nothing = Selection(statuses=["SENT"], key="a", until=before)
        assert await operator.chosen(nothing) == []
        chosen = await operator.chosen(Selection(statuses=["SENT"], key="a", since=before))
        assert await operator.replay(chosen) == 60
        await outbox.until_all_are("SENT")
    assert world.by_key() == {"a": [f"a{number:02}" for number in range(60)]}
    assert {m.id for m in world.came} == {str(r["id"]) for r in rows if r["message_key"] == "a"}


async def test_discarding_what_blocks_a_key_lets_it_go_on(
    database: Database, outbox: Outbox, world: World
) -> None:
    operator = OutboxOperator(database)
    world.refuse("a1", REFUSED)
    world.refuse("b1", RETRY)
    await outbox.put(("a", "a1"), ("a", "a2"), ("b", "b1"), ("b", "b2"), (None, "n1"))
    async with relaying(database, world, dead_blocks=True, retry_after=3600.0):
        rows = await outbox.until(lambda rows: sum(row["parked"] for row in rows) == 4)
        assert await operator.discard(ids(rows, "a1", "b1", "n1")) == 2
        rows = await outbox.until_all_are("SENT", "DISCARDED")
        await outbox.put(("a", "a3"), ("b", "b3"))
        await outbox.until_all_are("SENT", "DISCARDED")
    assert world.by_key() == {"a": ["a2", "a3"], "b": ["b2", "b3"], None: ["n1"]}


async def test_a_dead_message_that_blocks_is_replayed_before_what_follows_it(
    database: Database, outbox: Outbox, world: World
) -> None:
    operator = OutboxOperator(database)
    world.refuse("a1", REFUSED)
    await outbox.put(("a", "a1"), ("a", "a2"))
    async with relaying(database, world, dead_blocks=True):
        rows = await outbox.until(lambda rows: all(row["parked"] for row in rows))
        await operator.replay(ids(rows, "a1"))
        await outbox.until_all_are("SENT")
    assert world.by_key() == {"a": ["a1", "a2"]}


async def test_only_what_is_done_and_old_is_pruned(
    database: Database, outbox: Outbox, world: World
) -> None:
    operator = OutboxOperator(database)
    world.refuse("dead", REFUSED)
    await outbox.put(*[(f"k{number}", "old") for number in range(500)], ("d", "dead"))
    async with relaying(database, world):
        await outbox.until_all_are("SENT", "DEAD")
    past = "now() - interval '8 days'"
    await database.fetch(
        f"UPDATE outbox_messages SET created_at = {past}, updated_at = {past} RETURNING 1"
    )
    await outbox.put(("a", "new"))
    assert await operator.prune(7 * 86400.0) == 500
    assert await operator.prune(7 * 86400.0) == 0
    assert await outbox.statuses() == {"dead": "DEAD", "new": "PENDING"}


async def test_what_one_round_of_pruning_met_does_not_end_all_pruning() -> None:
    class Broken(OutboxOperator):
        rounds = 0
        again = asyncio.Event()

        async def prune(self, seconds: float) -> int:
            self.rounds += 1
            if self.rounds == 1:
                raise RuntimeError("a statement timed out")
            self.again.set()
            return 0

    operator = Broken(Database("postgresql:///nowhere"))
    pruning = asyncio.create_task(_prune(operator, 0.0, first=0.0))
    async with asyncio.timeout(60):
        await operator.again.wait()
    await cancel_and_wait(pruning)
