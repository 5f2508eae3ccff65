"""Wake-ups between processes: NOTIFY after a commit, LISTEN in the relays.

Never NOTIFY inside the caller's transaction: it makes every committer wait for the one before
(measured: 5,469 commits a second fell to 1,178). Wakes go out after the commit, over a
connection of their own, the first at once and then at most one every few milliseconds. They
may be lost; relays poll as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import Self

import psycopg
from psycopg import AsyncConnection

from allim.base.ids import uuid7
from allim.base.tasks import cancel_and_wait
from allim.database.pool import Database

log = logging.getLogger("allim.database.wakes")

CHANNEL = "allim_wake"
GATHER_SECONDS = 0.005
RECONNECT_SECONDS = 1.0
LONGEST_RECONNECT_SECONDS = 30.0

OnWake = Callable[[Collection[str]], None]


class Waker:
    """Tells other processes, after a commit, which lanes have work.

    Each wake begins with the waker's `name`, so that a listener beside it, whose process has
    woken its own lanes already, can pass over it.
    """

    def __init__(self, database: Database) -> None:
        self.name = uuid7().hex[-12:]
        self._database = database
        self._lanes: set[str] = set()
        self._dirty = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)

    def wake(self, lanes: Collection[str]) -> None:
        """Have these lanes woken; returns at once. Used from the event loop only."""
        self._lanes.update(lanes)
        self._dirty.set()

    async def _run(self) -> None:
        pause = RECONNECT_SECONDS
        while True:
            try:
                async with await _connect(self._database.url, "allim waker") as connection:
                    if not self._database.pooler:
                        # Nothing is lost with a wake: it needs no durable commit. A pooler
                        # would lend the setting to others, whose commits are to be durable.
                        await connection.execute("SET synchronous_commit = off")
                    pause = RECONNECT_SECONDS
                    await self._send_until_broken(connection)
            except psycopg.Error as error:
                log.warning("wakes are not sent, relays poll meanwhile: %s", _first_line(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_RECONNECT_SECONDS)

    async def _send_until_broken(self, connection: AsyncConnection) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            lanes, self._lanes = self._lanes, set()
            wake = f"{self.name} {','.join(sorted(lanes))}"
            try:
                await connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, wake])
            except psycopg.Error:
                self.wake(lanes)  # over the next connection
                raise
            await asyncio.sleep(GATHER_SECONDS)


class Listener:
    """Hears wakes from other processes, where a session connection is to be had.

    `on_wake` is called with the lanes; `on_listening` with True once wakes are heard, with False
    when they are not any more (then relays poll more often). Wakes of the waker named `but_not`
    are passed over. A wake without a name counts too, so that plain SQL can send one:
    ``NOTIFY allim_wake, 'EMAIL'``.
    """

    def __init__(
        self,
        database: Database,
        on_wake: OnWake,
        on_listening: Callable[[bool], None],
        *,
        but_not: str | None = None,
    ) -> None:
        self._database = database
        self._on_wake = on_wake
        self._on_listening = on_listening
        self._but_not = but_not
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._database.pooler:
            log.info("a pooler stands before the database: no LISTEN, relays poll")
        else:
            self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def _run(self) -> None:
        pause = RECONNECT_SECONDS
        while True:
            with contextlib.suppress(psycopg.Error):
                async with await _connect(self._database.url, "allim listener") as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._on_listening(True)
                    pause = RECONNECT_SECONDS
                    async for notice in connection.notifies():
                        sender, _, lanes = notice.payload.rpartition(" ")
                        if sender != self._but_not:
                            self._on_wake(lanes.split(","))
            self._on_listening(False)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_RECONNECT_SECONDS)


async def wake_now(database: Database, lanes: Collection[str]) -> None:
    """Wake these lanes once, for a command that ends after its commit and opens no `Waker`."""
    wake = ",".join(sorted(lanes))
    await database.fetch("SELECT pg_notify(%(to)s, %(wake)s)", {"to": CHANNEL, "wake": wake})


async def _connect(url: str, name: str) -> AsyncConnection:
    # Nothing is prepared: behind a pooler the next statement may meet another server connection.
    return await AsyncConnection.connect(
        url, autocommit=True, connect_timeout=5, application_name=name, prepare_threshold=None
    )


def _first_line(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
