"""A relay of events under test: messages put into the outbox, and a world that takes them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from psycopg.rows import dict_row

from allim.database.pool import Connection, Database
from allim.events.relaying.box import OutboxBox
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.limits import OrderedLimits
from allim.relay.ordered.publisher import DELIVERED, NOT_TRIED, MaySend, Publisher
from allim.relay.ordered.relay import OrderedRelay
from allim.relay.ordered.turns import DeadLetters, Ways
from allim.relay.outcomes import Outcome
from allim.relay.wake import WakeSignal

PATIENCE_SECONDS = 60.0
LIMITS = OrderedLimits(
    lease=30.0,
    batch=10,
    batch_max=40,
    retry_after=0.02,
    poll_deaf=0.02,
    due_every=0.02,
    balance_every=0.02,
    pause=0.02,
    pause_max=0.05,
    grace=5.0,
)

INSERT = """
INSERT INTO outbox_messages (id, topic, message_key, slot, payload)
SELECT gen_random_uuid(), topic, key, outbox_slot(key), convert_to(payload, 'UTF8')
  FROM unnest(%(topics)s::text[], %(keys)s::text[], %(payloads)s::text[])
       WITH ORDINALITY AS e (topic, key, payload, place) ORDER BY place
"""


async def put(tx: Connection, *events: tuple[str | None, str], topic: str = "orders") -> None:
    """Write events, each a key and a payload, in a transaction of the caller's."""
    await tx.execute(
        INSERT,
        {
            "topics": [topic] * len(events),
            "keys": [key for key, _ in events],
            "payloads": [payload for _, payload in events],
        },
    )


class World:
    """A publisher that takes everything, but for what it was told to refuse.

    `refuse(payload, outcome, …)` answers a message with these outcomes, one each time, before it
    takes it.
    """

    def __init__(self, name: str = "world") -> None:
        self.name = name
        self.came: list[OutboxMessage] = []
        self.calls: list[list[str]] = []
        self.purged = 0
        self.names: list[str] = []
        self.fenced: list[str] = []
        self.fence_fails = False
        self.hold: asyncio.Event | None = None
        """While this is not set, publishing waits."""
        self.down = False
        self._answers: dict[str, list[Outcome]] = {}
        self._change = asyncio.Event()

    def refuse(self, payload: str, *answers: Outcome) -> None:
        """Answer so before it is taken."""
        self._answers[payload] = list(answers)

    def begin(self, relay: str) -> None:
        """Note it."""
        self.names.append(relay)

    async def fence(self, relay: str) -> None:
        """Note it, unless that fails now."""
        if self.fence_fails:
            raise ConnectionError("nobody answers")
        self.fenced.append(relay)

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        """Take a batch."""
        self.calls.append([message.payload.decode() for message in batch])
        self._changed()
        if self.hold is not None:
            await self.hold.wait()
        if self.down:
            return [Outcome.fault("down")] * len(batch)
        stopped = set()
        outcomes = []
        for message in batch:
            answers = self._answers.get(message.payload.decode())
            if message.line in stopped or not may_send():
                outcomes.append(NOT_TRIED)
            elif answers:
                outcomes.append(answers.pop(0))
                if message.line is not None:
                    stopped.add(message.line)
            else:
                self.came.append(message)
                outcomes.append(DELIVERED)
        self._changed()
        return outcomes

    async def purge(self) -> None:
        """Count."""
        self.purged += 1
        if self.hold is not None:
            self.hold.set()

    async def close(self) -> None:
        """Nothing is held."""

    async def diagnose(self) -> str | None:
        """All is well."""
        return None

    def by_key(self) -> Mapping[str | None, list[str]]:
        """What came, by key, in the order it came."""
        found: dict[str | None, list[str]] = defaultdict(list)
        for message in self.came:
            found[message.key].append(message.payload.decode())
        return found

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of what came."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():
                await self._change.wait()

    async def takes(self, count: int) -> None:
        """Wait until that many came."""
        await self.until(lambda: len(self.came) >= count)

    def _changed(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


class Outbox:
    """What stands in the outbox."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def put(self, *events: tuple[str | None, str], topic: str = "orders") -> None:
        """Write events in a transaction of their own."""
        async with self.database.transaction() as tx:
            await put(tx, *events, topic=topic)

    async def rows(self) -> list[dict[str, Any]]:
        """Every message, in the order of `seq`."""
        async with self.database.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(
                "SELECT *, convert_from(payload, 'UTF8') AS text FROM outbox_messages ORDER BY seq"
            )
            return await cursor.fetchall()

    async def statuses(self) -> dict[str, str]:
        """The status of each message, by its payload."""
        return {row["text"]: row["status"] for row in await self.rows()}

    async def until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Wait until something holds of what stands there."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds(rows := await self.rows()):
                await asyncio.sleep(0.01)
        return rows

    async def until_all_are(self, *statuses: str) -> list[dict[str, Any]]:
        """Wait until every message has one of these statuses."""
        return await self.until(lambda rows: {row["status"] for row in rows} <= {*statuses})


@pytest.fixture
def outbox(database: Database) -> Outbox:
    """The outbox of this test's database."""
    return Outbox(database)


@pytest.fixture
def world() -> World:
    """Who takes messages."""
    return World()


@asynccontextmanager
async def relaying(
    database: Database,
    *worlds: Publisher[OutboxMessage],
    dead_blocks: bool = False,
    dead_letters: DeadLetters[OutboxMessage] | None = None,
    signal: WakeSignal | None = None,
    box: OutboxBox | None = None,
    **limits: Any,
) -> AsyncIterator[OrderedRelay[OutboxMessage]]:
    """A relay; topics go to the world that has the topic's name, else to the first."""
    names = {world.name: world for world in worlds}
    relay = OrderedRelay(
        box or OutboxBox(database, dead_blocks=dead_blocks),
        Ways(names, lambda t: t if t in names else worlds[0].name, dead_letters),
        wake=signal or WakeSignal(),
        limits=replace(LIMITS, **limits),
    )
    running = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        relay.stop()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await running


RETRY = Outcome.retry("broken", "it broke")
REFUSED = Outcome.refused("too_large", "it is too large")
