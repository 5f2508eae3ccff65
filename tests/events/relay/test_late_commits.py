"""Producers' long transactions neither lose, nor stall, nor reorder.

No test here waits for the rescan from the bottom: it is set to an hour.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psycopg

from allim.database.pool import Database
from allim.events.slots import slot_of
from allim.relay.ordered.relay import LANE
from allim.relay.wake import WakeSignal
from tests.events.relay.conftest import Outbox, World, put, relaying

HOUR = 3600.0


async def test_a_transaction_that_commits_late_is_published_then_and_stalls_nobody(
    database: Database, outbox: Outbox, world: World
) -> None:
    async with relaying(database, world, rescan_every=HOUR), database.connection() as late:
        await late.execute("BEGIN")
        await put(late, *[(f"late{number}", "late") for number in range(64)])
        for number in range(5):
            await outbox.put(*[(f"k{key}", f"{number}") for key in range(64)])
            await world.takes(64 * (number + 1))
        await late.execute("COMMIT")
        await outbox.until_all_are("SENT")
    assert len(world.came) == len({m.id for m in world.came}) == 64 * 6


async def test_an_id_taken_early_hides_nothing(
    database: Database, outbox: Outbox, world: World
) -> None:
    async with relaying(database, world, rescan_every=HOUR), database.connection() as early:
        await early.execute("BEGIN")
        await early.execute("SELECT pg_current_xact_id()")
        await outbox.put(*[(f"k{key}", "1") for key in range(64)])
        await world.takes(64)
        await put(early, *[(f"early{number}", "early") for number in range(64)])
        await outbox.put(*[(f"k{key}", "2") for key in range(64)])
        await world.takes(128)
        await early.execute("COMMIT")
        await outbox.until_all_are("SENT")
    assert len(world.came) == 192


async def test_what_follows_a_late_commit_does_not_overtake_it(
    database: Database, outbox: Outbox, world: World
) -> None:
    beside = next(key for n in range(9999) if slot_of(key := f"k{n}") == slot_of("a"))
    signal = WakeSignal()
    async with (
        relaying(database, world, signal=signal, rescan_every=HOUR, poll_deaf=HOUR),
        database.connection() as late,
    ):
        await late.execute("BEGIN")
        await put(late, ("a", "1"))
        await outbox.put((beside, "beside"))
        signal.wake([LANE])
        await world.takes(1)
        await outbox.until(lambda rows: rows[-1]["status"] == "SENT")
        # Both come between two looks of the relay.
        await late.execute("COMMIT")
        await outbox.put(("a", "2"))
        signal.wake([LANE])
        await outbox.until_all_are("SENT")
    assert world.by_key() == {beside: ["beside"], "a": ["1", "2"]}


async def test_savepoints_that_are_rolled_back_publish_nothing(
    database: Database, outbox: Outbox, world: World
) -> None:
    async with relaying(database, world, rescan_every=HOUR), database.connection() as tx:
        await tx.execute("BEGIN")
        await put(tx, ("a", "a1"))
        await tx.execute("SAVEPOINT one")
        await put(tx, ("a", "never"))
        await tx.execute("ROLLBACK TO one")
        await outbox.put(("b", "b1"))
        await world.takes(1)
        await put(tx, ("a", "a2"))
        await tx.execute("SAVEPOINT two")
        await put(tx, ("a", "a3"))
        await tx.execute("RELEASE two")
        await tx.execute("COMMIT")
        await world.takes(4)
        await outbox.until_all_are("SENT")
    assert world.by_key() == {"a": ["a1", "a2", "a3"], "b": ["b1"]}


async def test_many_producers_of_every_kind_lose_nothing_and_keep_every_key_in_order(
    database: Database, database_url: str, outbox: Outbox, world: World
) -> None:
    """Each writes keys that it locks first, as the contract with producers says."""
    committed: dict[str, list[str]] = {}
    chance = random.Random(7)

    async def produce(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as tx:
            for turn in range(12):
                key = f"k{chance.randrange(6)}"
                kind = chance.choice(["plain", "plain", "early", "savepoint", "rollback", "long"])
                await tx.execute("BEGIN")
                if kind == "early":
                    await tx.execute("SELECT pg_current_xact_id()")
                    await asyncio.sleep(0.005)
                await tx.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [key])
                mine = [f"{number}-{turn}-{place}" for place in range(chance.randrange(1, 4))]
                await put(tx, *[(key, payload) for payload in mine])
                if kind == "savepoint":
                    await tx.execute("SAVEPOINT s")
                    await put(tx, (key, "never"))
                    await tx.execute("ROLLBACK TO s")
                if kind in ("long", "rollback"):
                    await asyncio.sleep(0.02)
                # Written down while the key is still locked: in the order of the commits.
                if kind != "rollback":
                    committed.setdefault(key, []).extend(mine)
                await tx.execute("ROLLBACK" if kind == "rollback" else "COMMIT")

    async with relaying(database, world, rescan_every=HOUR):
        await asyncio.gather(*(produce(number) for number in range(8)))
        await outbox.until_all_are("SENT")
    assert world.by_key() == committed


async def test_a_long_transaction_elsewhere_does_not_keep_marks_down(
    database: Database, outbox: Outbox, world: World
) -> None:
    marks: Any = None
    async with (
        relaying(database, world, rescan_every=HOUR) as relay,
        database.connection() as other,
    ):
        await other.execute("BEGIN")
        await other.execute("SELECT pg_current_xact_id()")
        for number in range(5):
            await outbox.put(*[(f"k{key}", f"{number}") for key in range(64)])
            await world.takes(64 * (number + 1))
        await outbox.until_all_are("SENT")
        assert relay._life is not None
        marks = list(relay._life._marks._marks)
        await other.execute("ROLLBACK")
    assert max(marks) > 64 * 4
