"""The outbox in PostgreSQL and the one in memory keep to the same cases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import psycopg
import pytest

from allim.database.pool import Connection, Database
from allim.events.relaying.box import OutboxBox
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.box import OrderedBox
from allim.testing.clock import HandClock
from allim.testing.memory_ordered_box import MemoryOrderedBox, MemoryTransaction
from allim.testing.ordered_boxes import (
    EventState,
    OpenTransaction,
    OrderedBoxConformance,
    OrderedBoxHarness,
)
from tests.events.relay.conftest import put

STATES = """
SELECT convert_from(payload, 'UTF8'), status, parked, retry_count, error_message,
       extract(epoch FROM next_retry_at - clock_timestamp())::float8, seq
  FROM outbox_messages ORDER BY seq"""
PASS_TIME = """
WITH r AS (UPDATE relay SET lease_until = lease_until - make_interval(secs => %(seconds)s)),
     m AS (UPDATE outbox_messages SET next_retry_at = next_retry_at
           - make_interval(secs => %(seconds)s) WHERE next_retry_at IS NOT NULL)
SELECT 1"""


class PostgresTransaction:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, *events: tuple[str | None, str]) -> None:
        await put(self._connection, *events)

    async def commit(self) -> None:
        await self._connection.commit()

    async def rollback(self) -> None:
        await self._connection.rollback()


class PostgresHarness(OrderedBoxHarness):
    def __init__(self, database: Database, stack: AsyncExitStack) -> None:
        self.box = OutboxBox(database)
        self._database = database
        self._stack = stack

    def where_dead_block(self) -> OrderedBox[OutboxMessage]:
        return OutboxBox(self._database, dead_blocks=True)

    async def begin(self) -> OpenTransaction:
        connection = await psycopg.AsyncConnection.connect(self._database.url)
        self._stack.push_async_callback(connection.close)
        return PostgresTransaction(connection)

    async def states(self) -> Sequence[EventState]:
        return [EventState(*row) for row in await self._database.fetch(STATES)]

    async def pass_time(self, seconds: float) -> None:
        await self._database.fetch(PASS_TIME, {"seconds": seconds})


class TestPostgres(OrderedBoxConformance):
    @pytest.fixture
    async def harness(self, database: Database) -> AsyncIterator[PostgresHarness]:
        async with AsyncExitStack() as stack:
            yield PostgresHarness(database, stack)


class MemoryProducer:
    def __init__(self, transaction: MemoryTransaction) -> None:
        self._transaction = transaction

    async def put(self, *events: tuple[str | None, str]) -> None:
        for key, payload in events:
            self._transaction.publish(key, payload)

    async def commit(self) -> None:
        self._transaction.commit()

    async def rollback(self) -> None:
        self._transaction.rollback()


class MemoryHarness(OrderedBoxHarness):
    def __init__(self) -> None:
        self.clock = HandClock()
        self.memory = MemoryOrderedBox(clock=self.clock)
        self.box = self.memory

    def where_dead_block(self) -> OrderedBox[OutboxMessage]:
        self.memory.dead_blocks = True
        return self.memory

    async def begin(self) -> OpenTransaction:
        return MemoryProducer(self.memory.begin())

    async def states(self) -> Sequence[EventState]:
        now = self.clock()
        return [
            EventState(
                event.message.payload.decode(), event.status, event.parked,
                event.message.retry_count, event.error,
                None if event.due is None else event.due - now, event.seq,
            )
            for event in self.memory.committed()
        ]  # fmt: skip

    async def pass_time(self, seconds: float) -> None:
        self.clock.turn(seconds)


class TestMemory(OrderedBoxConformance):
    @pytest.fixture
    async def harness(self) -> MemoryHarness:
        return MemoryHarness()
