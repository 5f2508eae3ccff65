"""Wakes between processes: from a commit to whoever listens, also after a broken connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import pytest

from allim.database.pool import Database
from allim.database.wakes import Listener, Waker

DEADLINE_SECONDS = 30.0


class Ears:
    """What a listener heard."""

    def __init__(self) -> None:
        self.lanes: list[str] = []
        self.listening: list[bool] = []

    def on_wake(self, lanes: Collection[str]) -> None:
        self.lanes.extend(lanes)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                await asyncio.sleep(0.005)

    def listener(self, database: Database) -> Listener:
        return Listener(database, self.on_wake, self.listening.append)


async def cut(database: Database, name: str) -> None:
    """Break the connections of that name, as a restart of the server would."""
    async with database.connection() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database()",
            [name],
        )


async def test_a_wake_is_heard_on_another_connection(database: Database, database_url: str) -> None:
    ears = Ears()
    async with Database(database_url) as elsewhere, ears.listener(elsewhere):
        await ears.until(lambda: ears.listening == [True])
        async with Waker(database) as waker:
            waker.wake({"EMAIL", "SLACK"})
            await ears.until(lambda: set(ears.lanes) == {"EMAIL", "SLACK"})


async def test_wakes_that_come_together_go_out_together(database: Database) -> None:
    ears = Ears()
    async with ears.listener(database), Waker(database) as waker:
        await ears.until(lambda: ears.listening == [True])
        for _ in range(500):
            waker.wake({"EMAIL"})
        waker.wake({"LAST"})
        await ears.until(lambda: "LAST" in ears.lanes)

    assert len(ears.lanes) <= 3


async def test_a_listener_says_when_it_is_deaf_and_hears_again(database: Database) -> None:
    ears = Ears()
    async with ears.listener(database), Waker(database) as waker:
        await ears.until(lambda: ears.listening == [True])

        await cut(database, "allim listener")

        await ears.until(lambda: ears.listening == [True, False, True])
        waker.wake({"EMAIL"})
        await ears.until(lambda: "EMAIL" in ears.lanes)


async def test_a_waker_whose_connection_broke_sends_again(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    ears = Ears()
    async with ears.listener(database), Waker(database) as waker:
        await ears.until(lambda: ears.listening == [True])
        waker.wake({"BEFORE"})
        await ears.until(lambda: "BEFORE" in ears.lanes)

        await cut(database, "allim waker")
        # It finds the connection broken, and goes out over the next.
        waker.wake({"AFTER"})
        await ears.until(lambda: "AFTER" in ears.lanes)
