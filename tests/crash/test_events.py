"""Relays of events are killed, frozen, cut off from the database: all that is seen are repeats."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from allim.database.embedded import EmbeddedServer
from allim.database.embedded.postmaster import Postmaster
from allim.database.migrate import migrate
from tests.crash.conftest import Launch, launching

PATIENCE_SECONDS = 90.0
KEYS = 24

INSERT = """
INSERT INTO outbox_messages (id, topic, message_key, slot, payload)
SELECT gen_random_uuid(), 'orders', key, outbox_slot(key), convert_to(payload, 'UTF8')
  FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS e (key, payload, place) ORDER BY place
"""


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """What all relays sent, in the order they did."""
    path = tmp_path / "sent"
    path.touch()
    return path


@pytest.fixture
async def launch() -> AsyncIterator[Launch]:
    """Start relays of events in processes of their own."""
    async with launching("events_process") as start:
        yield lambda url, file, **options: start(database=url, file=str(file), **options)


async def put(url: str, start: int, each: int, *, refuse_every: int = 0) -> None:
    """Write events of every key, numbered; some are refused once."""
    events = []
    for n in range(start, start + each):
        refused = refuse_every and n % refuse_every == refuse_every - 1
        events += [(f"k{key}", f"{'refuse' if refused else 'take'}-{n:05}") for key in range(KEYS)]
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(INSERT, [[k for k, _ in events], [p for _, p in events]])


async def count(url: str, where: str) -> int:
    """How many messages there are, where …"""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        query = f"SELECT count(*) FROM outbox_messages WHERE {where}".encode()
        row = await (await connection.execute(query)).fetchone()
        assert row is not None
        return int(row[0])


async def until_sent(url: str) -> None:
    """Wait until everything is."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await count(url, "status <> 'SENT'"):
            await asyncio.sleep(0.05)


def check(file: Path, each: int) -> int:
    """Every key's first occurrences are all there, in order; how many lines were repeats."""
    seen: set[str] = set()
    first: dict[str, list[str]] = {}
    lines = file.read_text().splitlines()
    for line in lines:
        key, payload, identity = line.split(" ")
        if identity not in seen:
            seen.add(identity)
            first.setdefault(key, []).append(payload.partition("-")[2])
    assert first == {f"k{key}": [f"{n:05}" for n in range(each)] for key in range(KEYS)}
    return len(lines) - len(seen)


@pytest.mark.parametrize(
    ("moment", "repeats"),
    [
        ("after fetch", False),
        ("in publish", True),
        ("after publish", True),
        ("before settle", True),
        ("after settle", False),
    ],
)
async def test_a_relay_killed_at_any_step_loses_and_reorders_nothing(
    moment: str, repeats: bool, database_url: str, sent: Path, launch: Launch
) -> None:
    await put(database_url, 0, 6, refuse_every=4)
    doomed = await launch(database_url, sent, kill_at=moment, kill_on=2)
    assert await doomed.death() == -signal.SIGKILL
    at_death = sent.read_text().count("\n")
    settled = await count(database_url, "status = 'SENT'")
    await launch(database_url, sent)
    await until_sent(database_url)
    doubled = check(sent, 6)
    # Exactly what was out and not on record: nothing else goes out twice.
    assert doubled == at_death - settled
    assert bool(doubled) or not repeats


async def test_two_relays_killed_over_and_over_lose_and_reorder_nothing(
    database_url: str, sent: Path, launch: Launch
) -> None:
    moments = ["in publish", "before settle", "after settle", "after fetch"]
    for round_, moment in enumerate(moments):
        doomed = [
            await launch(database_url, sent, kill_at=moment, kill_on=kill_on, lease=1.5)
            for kill_on in (3, 5)
        ]
        await put(database_url, round_ * 8, 8, refuse_every=5)
        for relay in doomed:
            try:
                async with asyncio.timeout(8.0):
                    await relay.process.wait()
            except TimeoutError:
                # The other one did the work: this one's moment did not come.
                relay.send(signal.SIGKILL)
            await relay.death()
    await launch(database_url, sent)
    await until_sent(database_url)
    check(sent, 32)
    assert await count(database_url, "retry_count > 1") == 0


async def test_a_relay_that_sleeps_past_its_lease_writes_nothing_when_it_wakes(
    database_url: str, sent: Path, launch: Launch
) -> None:
    await put(database_url, 0, 5)
    sleeper = await launch(database_url, sent, lease=2.0, pace=0.02)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sent.read_text().count("\n") < 10:
            await asyncio.sleep(0.01)
    sleeper.send(signal.SIGSTOP)
    other = await launch(database_url, sent)
    await until_sent(database_url)
    finished = sent.read_text()
    sleeper.send(signal.SIGCONT)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any("lost" in said for said in sleeper.said):
            await asyncio.sleep(0.05)
    # It lives on under a new name and takes its share again.
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sleeper.said[-1].get("held") != 32 or other.said[-1].get("held") != 32:
            await asyncio.sleep(0.05)
    woken = sent.read_text().removeprefix(finished).splitlines()
    assert len(woken) <= 1, "at most what it was about to send when it fell asleep"
    assert await count(database_url, "version <> 1") == 0, "each was settled once"
    await put(database_url, 5, 5)
    await until_sent(database_url)
    check(sent, 10)


async def test_a_restart_of_the_database_spends_no_retries_and_reorders_nothing(
    home: Path, sent: Path, launch: Launch
) -> None:
    server = await asyncio.to_thread(EmbeddedServer.open, home)
    migrate(server.url)
    relays = [await launch(server.url, sent, pace=0.003) for _ in range(2)]
    async with asyncio.timeout(PATIENCE_SECONDS):
        # One that has not begun yet when the database goes would not begin at all.
        while not all(relay.said for relay in relays):
            await asyncio.sleep(0.02)
    for round_ in range(3):
        await put(server.url, round_ * 6, 6)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while sent.read_text().count("\n") < (round_ * 6 + 2) * KEYS:
                await asyncio.sleep(0.02)
        if round_ < 2:
            postmaster = Postmaster.of(server.data)
            assert postmaster is not None
            # «Immediate shutdown»: as a crash, with recovery at the next start.
            os.kill(postmaster.pid, signal.SIGQUIT)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while postmaster.is_running():
                    await asyncio.sleep(0.02)
            again = await asyncio.to_thread(EmbeddedServer.open, home)
            again.close(leave_running=True)
    await until_sent(server.url)
    check(sent, 18)
    assert await count(server.url, "retry_count > 0") == 0
    for relay in relays:
        relay.send(signal.SIGTERM)
        assert await relay.death() == 0
    await asyncio.to_thread(server.close)
