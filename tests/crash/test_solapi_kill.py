"""Relays of texts are killed at every step of a group; no text goes out twice, none is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from allim.base.ids import uuid7
from allim.relay.observer import Silence
from allim.testing.solapi import FakeSolapi, Fault, Step
from tests.crash.conftest import Launch, launching, until
from tests.crash.dying import Death
from tests.crash.relay_process import LONG_LEASE
from tests.crash.solapi_process import run

MOMENTS = [
    "after the claim",
    "before create",
    "after create",
    "before record",
    "after record",
    "before add",
    "after add",
    "before send",
    "after send",
    "before commit",
    "after commit",
    "before ask",
    "after ask",
    "before delete",
    "after delete",
    "after list",
]
COUNT = 96
AT_ONCE = 4


@pytest.fixture
async def launch_texts(database_url: str) -> AsyncIterator[Launch]:
    """Start relays of texts in processes of their own."""
    async with launching("solapi_process") as start:
        yield lambda solapi, **options: start(
            database=database_url, solapi=solapi.environment(), **options
        )


async def add_texts(url: str, count: int) -> set[str]:
    """Texts, every fourth to the same number; the keys that Solapi will know them by."""
    keys = set()
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for number in range(count):
            notification = uuid7()
            to = "01000009999" if number % 4 == 0 else f"0100000{number:04d}"
            await connection.execute(
                "INSERT INTO notification (id, source, type, message)"
                " VALUES (%s, 'test', 'TEST', '안녕하세요')",
                [notification],
            )
            cursor = await connection.execute(
                "INSERT INTO delivery (notification_id, channel, recipient, max_attempts)"
                " VALUES (%s, 'SMS', %s, 20) RETURNING id",
                [notification, to],
            )
            row = await cursor.fetchone()
            assert row is not None
            keys.add(f"{notification}:{row[0]}")
    return keys


@asynccontextmanager
async def a_living_relay(url: str, solapi: FakeSolapi) -> AsyncIterator[None]:
    """A relay in this process that does not die."""
    stop = asyncio.Event()
    death = Death(None, 0)
    running = asyncio.create_task(
        run(url, solapi.environment(), death, Silence(), stop, LONG_LEASE)
    )
    try:
        yield
    finally:
        stop.set()
        await running


async def ends(url: str) -> dict[str, str]:
    """How each text stands, by its key; `crash_loop` where too many relays died over it."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute(
            "SELECT notification_id || ':' || id, coalesce(error_code, status) FROM delivery"
        )
        return dict(await cursor.fetchall())


async def until_all_ended(url: str) -> dict[str, str]:
    async def ended() -> bool:
        return set((await ends(url)).values()) <= {"ACCEPTED", "crash_loop"}

    await until(ended, "every text to be accepted")
    return await ends(url)


async def forget_rescues(url: str) -> None:
    """As if days had passed since the last relay died: five in a row make a dead letter."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("UPDATE delivery SET rescue_count = 0")


async def test_relays_killed_at_every_step_double_and_lose_nothing(
    database_url: str, launch_texts: Launch
) -> None:
    async with FakeSolapi() as solapi:
        keys = await add_texts(database_url, COUNT)
        solapi.delay = 0.02
        # Sends whose end is not seen, so that there is something to ask for and to delete.
        solapi.fail(Step.SEND, *[Fault.cut(done=True), Fault.status(500)] * 6)
        died = []
        for start in range(0, len(MOMENTS), AT_ONCE):
            doomed = {
                moment: await launch_texts(solapi, kill_at=moment, kill_on=1 + start % 2)
                for moment in MOMENTS[start : start + AT_ONCE]
            }
            for moment, relay in doomed.items():
                try:
                    async with asyncio.timeout(10.0):
                        died.append((moment, await relay.process.wait()))
                except TimeoutError:
                    # Its moment did not come any more; it is killed wherever it stands.
                    relay.process.kill()
                    await relay.process.wait()
            await forget_rescues(database_url)
        async with a_living_relay(database_url, solapi):
            found = await until_all_ended(database_url)

        assert {code for _, code in died} == {-signal.SIGKILL}
        assert len(died) >= 4, died
        assert set(found) == keys
        assert solapi.times_out() == {key: 1 for key in keys if found[key] == "ACCEPTED"}
        assert list(found.values()).count("crash_loop") <= COUNT // 4


@pytest.mark.parametrize("done", [True, False])
async def test_a_relay_killed_in_the_middle_of_a_call_doubles_and_loses_nothing(
    database_url: str, launch_texts: Launch, done: bool
) -> None:
    async with FakeSolapi() as solapi:
        keys = await add_texts(database_url, 12)
        for step in (Step.CREATE, Step.ADD, Step.SEND):
            solapi.fail(step, Fault.hang(done=done))
            before = solapi.count(step)
            relay = await launch_texts(solapi)
            await solapi.called(step, before + 1)
            relay.send(signal.SIGKILL)
            await relay.death()
        async with a_living_relay(database_url, solapi):
            found = await until_all_ended(database_url)

        assert solapi.times_out() == dict.fromkeys(keys, 1)
        assert set(found.values()) == {"ACCEPTED"}


async def test_a_relay_that_sleeps_before_its_send_cannot_send_when_it_wakes(
    database_url: str, launch_texts: Launch
) -> None:
    async with FakeSolapi() as solapi:
        keys = await add_texts(database_url, 1)
        # It sleeps with its group filled and not sent.
        held = solapi.delay_of[Step.ADD] = asyncio.Event()
        sleeper = await launch_texts(solapi)
        await solapi.called(Step.ADD)
        sleeper.send(signal.SIGSTOP)
        held.set()
        async with a_living_relay(database_url, solapi):
            found = await until_all_ended(database_url)
            sent = solapi.count(Step.SEND)
            sleeper.send(signal.SIGCONT)

            async def it_has_tried() -> bool:
                return solapi.count(Step.SEND) > sent or bool(sleeper.refused)

            await until(it_has_tried, "the woken relay to try")
        assert solapi.times_out() == dict.fromkeys(keys, 1)
        assert set(found.values()) == {"ACCEPTED"}
        assert sleeper.landed == []
