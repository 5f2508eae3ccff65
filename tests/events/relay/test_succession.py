"""Who takes over from a relay that ended without a word has it fenced before it publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from allim.database.pool import Database
from allim.events.relaying.box import OutboxBox
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.publisher import MaySend, Superseded
from allim.relay.outcomes import Outcome
from tests.events.relay.conftest import PATIENCE_SECONDS, Outbox, World, relaying


async def leave_without_a_word(database: Database, name: str = "dead") -> None:
    """A relay that holds every slot, and whose lease has run out."""
    box = OutboxBox(database)
    await box.register(name, -1.0)
    await database.fetch("UPDATE relay_slot SET relay_id = %(name)s RETURNING 1", {"name": name})


async def unfenced(database: Database) -> list[str]:
    rows = await database.fetch("SELECT id FROM relay WHERE retired AND NOT fenced ORDER BY id")
    return [name for (name,) in rows]


async def until_all_are_fenced(database: Database) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await unfenced(database) or await database.fetch(
            "SELECT 1 FROM relay WHERE NOT retired AND lease_until < clock_timestamp()"
        ):
            await asyncio.sleep(0.01)


class Strict(World):
    """Takes nothing before the dead are fenced."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        assert self.fenced == ["dead"]
        return await super().publish(batch, may_send)


async def test_who_is_gone_is_fenced_before_anything_is_published(
    database: Database, outbox: Outbox
) -> None:
    world = Strict()
    await leave_without_a_word(database)
    await outbox.put(("a", "a1"), ("b", "b1"))
    async with relaying(database, world):
        await outbox.until_all_are("SENT")
        await until_all_are_fenced(database)
    assert world.fenced == ["dead"]
    assert [len(call) for call in world.calls] == [2]


async def test_who_ended_in_peace_needs_no_fence(
    database: Database, outbox: Outbox, world: World
) -> None:
    await outbox.put(("a", "a1"))
    async with relaying(database, world):
        await outbox.until_all_are("SENT")
    assert await unfenced(database) == []
    other = World()
    await outbox.put(("a", "a2"))
    async with relaying(database, other):
        await outbox.until_all_are("SENT")
    assert other.fenced == []
    assert len({*world.names, *other.names}) == 2


async def test_who_left_something_in_flight_is_fenced_by_the_next(
    database: Database, outbox: Outbox, world: World
) -> None:
    world.hold = asyncio.Event()
    await outbox.put(("a", "a1"))
    async with relaying(database, world, grace=0.01):
        await world.until(lambda: bool(world.calls))
    assert await unfenced(database) == world.names
    other = World()
    async with relaying(database, other):
        await until_all_are_fenced(database)
    assert other.fenced == world.names


async def test_a_publisher_that_cannot_fence_now_holds_up_nothing_but_itself(
    database: Database, outbox: Outbox
) -> None:
    up, down = World("up"), World("down")
    down.fence_fails = True
    await leave_without_a_word(database)
    await outbox.put(("a", "a1"), topic="up")
    await outbox.put(("a", "a1"), topic="down")
    async with relaying(database, up, down):
        await up.takes(1)
        # Whoever comes after us must know of it, too.
        assert await unfenced(database) == ["dead"]
        assert down.calls == []
        down.fence_fails = False
        rows = await outbox.until_all_are("SENT")
        await until_all_are_fenced(database)
    assert [row["retry_count"] for row in rows] == [0, 0]


class Ousted(World):
    """Is fenced off at its first publish."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        if len(self.names) == 1:
            raise Superseded("another has opened it")
        return await super().publish(batch, may_send)


async def test_who_is_fenced_off_drops_all_and_begins_under_a_new_name(
    database: Database, outbox: Outbox
) -> None:
    world = Ousted()
    await outbox.put(("a", "a1"), ("a", "a2"))
    async with relaying(database, world):
        rows = await outbox.until_all_are("SENT")
    assert world.by_key() == {"a": ["a1", "a2"]}
    assert [row["retry_count"] for row in rows] == [0, 0]
    assert len(set(world.names)) == 2
    assert world.fenced == world.names[:1]
