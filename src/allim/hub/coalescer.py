"""Concurrent requests share transactions: what waits together is stored together.

A commit costs a disk flush whatever is in it, so requests that arrive while one is under
way wait for it and go into the next together. A request that comes alone goes alone, at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from allim.base.errors import (
    AllimError,
    Conflict,
    DatabaseUnavailable,
    FieldProblem,
    IdempotencyMismatch,
    InvalidRequest,
    Overloaded,
)
from allim.database.pool import Connection, Database
from allim.database.transactions import Conversation
from allim.hub.creation import Created, Prepared, create, first_answer, row_key_conflict
from allim.hub.model import NotificationRequest

Result = TypeVar("Result")

_LINGER = 0.2
"""Seconds that a writer keeps its connection when nothing waits any more."""
_TRIES = 12

OnCommit = Callable[[set[str]], None]
"""Told the lanes that have new work, after the commit; must not block or raise."""

_ITS_OWN_FAULT = ("22", "23", "40", "54")
"""SQLSTATE classes that one request of a batch can bring upon all: data, constraints,
deadlocks, limits. Alone, each of the others may well be stored."""


@dataclass(frozen=True, slots=True)
class CoalescerLimits:
    """How much may wait and how much goes together. Sizes are bytes of serialised rows.

    A batch that takes longer than `stuck` seconds waits for somebody's open transaction, which
    holds a key of it: those with keys then wait apart, each for `patience` seconds at most.
    """

    connections: int = 2
    batch: int = 500
    batch_bytes: int = 4 * 1024 * 1024
    waiting: int = 5000
    waiting_bytes: int = 64 * 1024 * 1024
    stuck: float = 2.0
    patience: float = 10.0
    apart: int = 4
    """How many may wait apart at a time."""


@dataclass(slots=True)
class _Waiting:
    prepared: Prepared
    stored: asyncio.Future[Created]

    def answer(self, result: Created | AllimError) -> None:
        # A client that went away has cancelled its future; what it sent is stored all the same.
        if self.stored.done():
            return
        if isinstance(result, Created):
            self.stored.set_result(result)
        else:
            self.stored.set_exception(result)


class Coalescer:
    """Stores notifications, those that arrive together in one transaction."""

    def __init__(
        self,
        database: Database,
        on_commit: OnCommit = lambda lanes: None,
        limits: CoalescerLimits | None = None,
    ) -> None:
        self._database = database
        self._on_commit = on_commit
        self._limits = limits or CoalescerLimits()
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._writers: list[asyncio.Task[None]] = []
        self._apart: set[asyncio.Task[None]] = set()
        self._places_apart = asyncio.Semaphore(self._limits.apart)
        self._closing = False

    async def store(self, prepared: Prepared) -> Created:
        """Store one notification, at once or with others that wait.

        Raises Overloaded when too much waits already, DatabaseUnavailable when the database
        is gone (nothing was stored, or the same request with its idempotency key will find it),
        Conflict for a taken row key, IdempotencyMismatch, InvalidRequest.
        """
        return await self.submit(prepared)

    async def first_answer(
        self, request: NotificationRequest, *, tenant_id: int | None, idempotency_key: str | None
    ) -> Created | None:
        """What the same request had stored, where it cannot be prepared any more; see there.

        Raises DatabaseUnavailable.
        """
        if idempotency_key is None:
            return None
        asking = first_answer(request, tenant_id=tenant_id, idempotency_key=idempotency_key)
        async with self._database.connection() as connection:
            return await _drive(connection, asking)

    def submit(self, prepared: Prepared) -> asyncio.Future[Created]:
        """The same without waiting: what it comes to. Raises Overloaded only."""
        size = len(prepared.row)
        if (
            self._closing
            or len(self._queue) >= self._limits.waiting
            or self._bytes + size > self._limits.waiting_bytes
        ):
            raise Overloaded("overloaded", "too many requests are waiting to be stored")
        if not self._writers:
            self._writers = [
                asyncio.create_task(self._write(), name=f"coalescer-{at}")
                for at in range(self._limits.connections)
            ]
        waiting = _Waiting(prepared, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._bytes += size
        self._wake_one()
        return waiting.stored

    async def close(self) -> None:
        """Store what waits, then stop."""
        self._closing = True
        while self._idle:
            self._wake_one()
        await asyncio.gather(*self._writers)
        self._writers = []
        await asyncio.gather(*self._apart)

    def _wake_one(self) -> None:
        while self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                return

    async def _write(self) -> None:
        while True:
            if not self._queue and not self._closing:
                await self._work(patience=None)
            if self._queue:
                await self._store_what_waits()
            elif self._closing:
                return

    async def _work(self, patience: float | None) -> bool:
        """Wait for work, at most `patience` seconds; whether there is any."""
        loop = asyncio.get_running_loop()
        idle = loop.create_future()
        self._idle.append(idle)
        timer = None if patience is None else loop.call_later(patience, _give_up, idle)
        await idle
        if timer is not None:
            timer.cancel()
        return bool(self._queue)

    async def _store_what_waits(self) -> None:
        batch: Sequence[_Waiting] = ()
        try:
            async with self._database.connection() as connection:
                while True:
                    while batch := self._take():
                        await self._store(connection, batch)
                    # A connection costs more to fetch from the pool than to keep for a moment.
                    if self._closing or not await self._work(_LINGER):
                        return
        except DatabaseUnavailable as error:
            if batch:
                await self._store_again(batch)
            for waiting in () if batch else self._take():
                waiting.answer(error)
        except Exception as error:  # The boundary of the writer: it must outlive any request.
            for waiting in batch:
                waiting.answer(_unexpected(error))

    async def _store_again(self, batch: Sequence[_Waiting]) -> None:
        """Send a batch again whose end nobody saw: what was stored already is found.

        After a restart of the database every pooled connection may be dead, so as many
        are tried.
        """
        failure: Exception = DatabaseUnavailable("the database went away")
        for _ in range(_TRIES):
            connected = False
            try:
                async with self._database.connection() as connection:
                    connected = True
                    await self._store(connection, batch)
                    return
            except DatabaseUnavailable as error:
                failure = error
                if not connected:
                    break
            except Exception as error:  # As above.
                failure = error
                break
        for waiting in batch:
            waiting.answer(_unexpected(failure))

    def _take(self) -> Sequence[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._queue and len(batch) < self._limits.batch and size < self._limits.batch_bytes:
            waiting = self._queue.popleft()
            size += len(waiting.prepared.row)
            batch.append(waiting)
        self._bytes -= size
        return batch

    async def _store(self, connection: Connection, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        can_be_stuck = any(waiting.prepared.has_keys for waiting in batch)
        try:
            async with asyncio.timeout(self._limits.stuck if can_be_stuck else None):
                results = await _drive(connection, create([waiting.prepared for waiting in batch]))
        except TimeoutError:
            self._set_apart([waiting for waiting in batch if waiting.prepared.has_keys])
            await self._store(
                connection, [waiting for waiting in batch if not waiting.prepared.has_keys]
            )
            return
        except psycopg.Error as error:
            if (error.sqlstate or "")[:2] not in _ITS_OWN_FAULT:
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._store(connection, batch[:middle])
                await self._store(connection, batch[middle:])
            elif (error.sqlstate or "").startswith("40"):
                raise
            else:
                batch[0].answer(await self._fault(connection, batch[0].prepared, error))
            return
        self._answer(batch, results)

    def _answer(
        self, batch: Sequence[_Waiting], results: Sequence[Created | IdempotencyMismatch]
    ) -> None:
        lanes: set[str] = set()
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, Created) and not result.replayed:
                lanes |= waiting.prepared.lanes
            waiting.answer(result)
        if lanes:
            self._on_commit(lanes)

    def _set_apart(self, batch: Sequence[_Waiting]) -> None:
        """Let these wait on connections of their own, and nobody for them."""
        for waiting in batch:
            task = asyncio.create_task(self._store_apart(waiting))
            self._apart.add(task)
            task.add_done_callback(self._apart.discard)

    async def _store_apart(self, waiting: _Waiting) -> None:
        try:
            async with (
                asyncio.timeout(self._limits.patience),
                self._places_apart,
                self._database.connection() as connection,
            ):
                try:
                    self._answer([waiting], await _drive(connection, create([waiting.prepared])))
                except psycopg.Error as error:
                    if (error.sqlstate or "")[:2] not in _ITS_OWN_FAULT:
                        raise
                    waiting.answer(await self._fault(connection, waiting.prepared, error))
        except TimeoutError:
            waiting.answer(Conflict("in_flight", "an open transaction holds a key of this request"))
        except Exception as error:  # The boundary of this one request, as in the writer.
            waiting.answer(_unexpected(error))

    async def _fault(
        self, connection: Connection, prepared: Prepared, error: psycopg.Error
    ) -> AllimError:
        if isinstance(error, psycopg.errors.UniqueViolation):
            ask = prepared.row_keys()
            rows = await (await connection.execute(ask.statement, {"batch": ask.batch})).fetchall()
            return row_key_conflict(prepared, rows)
        return unstorable_request(error)


def _give_up(idle: asyncio.Future[None]) -> None:
    if not idle.done():
        idle.set_result(None)


def unstorable_request(error: psycopg.Error) -> InvalidRequest:
    """What a data error of the database means to the caller, in the database's own words."""
    message = error.diag.message_primary or "cannot be stored"
    return InvalidRequest([FieldProblem("", "not_storable", message)], code="not_storable")


def _unexpected(error: Exception) -> AllimError:
    if isinstance(error, AllimError):
        return error
    unexpected = StorageFailed(f"{type(error).__name__} while storing a notification")
    unexpected.__cause__ = error
    return unexpected


class StorageFailed(AllimError):
    """A notification could not be stored, for a reason nobody foresaw; see its cause."""


async def _drive(connection: Connection, conversation: Conversation[Result]) -> Result:
    try:
        ask = next(conversation)
        while True:
            cursor = await connection.execute(
                ask.statement, {"batch": ask.batch}, prepare=True, binary=True
            )
            ask = conversation.send(await cursor.fetchall())
    except StopIteration as end:
        result: Result = end.value
        return result
