"""Relays in processes of their own, and a world outside that counts what arrives."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from allim.base.ids import uuid7
from allim.relay.observer import Silence
from allim.testing.http import HttpSink
from tests.crash.dying import Death
from tests.crash.relay_process import LONG_LEASE, WEBHOOK, run

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60.0
FINAL = {"SUCCESS", "DEAD", "HELD", "SKIPPED", "CANCELED"}


class RelayProcess:
    """A running `relay_process.py`; `said` is what it told so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if line.endswith(b"\n"):
                self.said.append(json.loads(line))

    @property
    def refused(self) -> list[int]:
        """The deliveries that it wanted to settle and could not."""
        return [said["settled"] for said in self.said if said.get("landed") is False]

    @property
    def landed(self) -> list[int]:
        """The deliveries that it settled."""
        return [said["settled"] for said in self.said if said.get("landed")]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def death(self) -> int:
        """Wait for its end; its exit code."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            code = await self.process.wait()
            await self._reading
        return code

    async def end(self) -> None:
        """Stop it if it still runs."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                async with asyncio.timeout(10.0):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
        await self._reading


Launch = Callable[..., Awaitable[RelayProcess]]


@asynccontextmanager
async def launching(program: str) -> AsyncIterator[Launch]:
    """Starts processes of one of the programs beside this file, and ends them; told by options."""
    started: list[RelayProcess] = []

    async def start(**options: Any) -> RelayProcess:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"tests.crash.{program}",
            json.dumps(options),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        one = RelayProcess(process)
        started.append(one)
        return one

    yield start
    for one in started:
        await one.end()


@pytest.fixture
async def launch() -> AsyncIterator[Launch]:
    """Start relays in processes of their own."""
    async with launching("relay_process") as start:
        yield lambda url, **options: start(database=url, **options)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that every user may pass through."""
    path = Path(tempfile.mkdtemp(prefix="allim-test-")).resolve()
    path.chmod(0o755)
    yield path / "home"
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def sink() -> AsyncIterator[HttpSink]:
    """The world outside."""
    async with HttpSink() as sink:
        yield sink


def arrivals(sink: HttpSink) -> Counter[str]:
    """How often each path was called."""
    return Counter(request.path for request in sink.requests)


@asynccontextmanager
async def another_relay(database_url: str) -> AsyncIterator[None]:
    """A relay in this process that does not die."""
    stop = asyncio.Event()
    running = asyncio.create_task(run(database_url, Death(None, 0), Silence(), stop, LONG_LEASE))
    try:
        yield
    finally:
        stop.set()
        await running


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> None:
    """Wait until something is true."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"waited in vain for {what}")


class Deliveries:
    """The deliveries of a database, written and read as a user would."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def untouched(self) -> bool:
        """Whether nobody is at work on the database: what a killed process had begun has ended."""
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'"
            )
            return await cursor.fetchone() == (0,)

    async def add(self, sink: HttpSink, count: int, *, with_steps: bool = False) -> None:
        """Webhooks to `count` paths of the sink, each perhaps followed by another."""
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            for number in range(count):
                child = {
                    "channel": WEBHOOK,
                    "recipient": f"{sink.url}/{number}/then",
                    "max_attempts": 8,
                }
                notification = uuid7()
                await connection.execute(
                    "INSERT INTO notification (id, source, type) VALUES (%s, 'test', 'TEST')",
                    [notification],
                )
                await connection.execute(
                    "INSERT INTO delivery"
                    " (notification_id, channel, recipient, max_attempts, then_steps)"
                    " VALUES (%s, %s, %s, 8, %s)",
                    [
                        notification,
                        WEBHOOK,
                        f"{sink.url}/{number}",
                        Jsonb([child]) if with_steps else None,
                    ],
                )

    async def all(self) -> list[dict[str, Any]]:
        """Every delivery with its attempts."""
        async with await psycopg.AsyncConnection.connect(
            self.url, row_factory=dict_row
        ) as connection:
            cursor = await connection.execute(
                "SELECT d.*, ARRAY(SELECT coalesce(a.outcome, '-') FROM delivery_attempt AS a"
                "                   WHERE a.delivery_id = d.id ORDER BY a.attempt_no) AS log"
                "  FROM delivery AS d ORDER BY d.id"
            )
            return await cursor.fetchall()

    async def are_final(self) -> bool:
        """Whether nothing is left to do."""
        try:
            found = await self.all()
        except psycopg.OperationalError:
            return False
        return {delivery["status"] for delivery in found} <= FINAL


@pytest.fixture
def deliveries(database_url: str) -> Deliveries:
    """The deliveries of this test's database."""
    return Deliveries(database_url)
