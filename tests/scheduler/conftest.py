"""A database whose clock a test turns by hand, and jobs that a test lets end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from pydantic import BaseModel, ConfigDict

from allim.database.pool import Database
from allim.scheduler.fires import FireLedger
from allim.scheduler.jobs import JobEnded
from allim.scheduler.model import ScheduleRequest
from allim.scheduler.scheduler import Scheduler, SchedulerLimits
from allim.scheduler.schedules import Schedules
from tests.hub.conftest import api, channels, start_api

__all__ = ["api", "channels", "start_api"]

START = datetime(2026, 11, 21, 1, 0, 30, tzinfo=UTC)


class Parameters(BaseModel):
    """What the job of these tests takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    category_id: int = 303


KINDS = {"sync": Parameters}


def with_fake_clock(url: str) -> str:
    """The database's URL, where `clock_timestamp()` is what `set_clock` last said."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS fake")
        connection.execute("CREATE TABLE fake.clock (at timestamptz NOT NULL)")
        connection.execute("INSERT INTO fake.clock VALUES (%s)", [START])
        connection.execute(
            "CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE"
            " RETURN (SELECT at FROM fake.clock)"
        )
    path = quote("-csearch_path=fake,pg_catalog,public")
    return f"{url}{'&' if '?' in url else '?'}options={path}"


class Jobs:
    """A job that a test holds and lets go; what it was called with."""

    def __init__(self, *, held: bool = False) -> None:
        self.calls: list[Mapping[str, Any]] = []
        self.canceled = 0
        self.ends: asyncio.Event = asyncio.Event()
        self.outcome: JobEnded | Exception = JobEnded(run_id=7)
        self._began = asyncio.Condition()
        if not held:
            self.ends.set()

    async def __call__(self, parameters: Mapping[str, Any]) -> JobEnded:
        async with self._began:
            self.calls.append(parameters)
            self._began.notify_all()
        try:
            await self.ends.wait()
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def began(self, count: int) -> None:
        """Wait until it was called so often."""
        async with asyncio.timeout(60), self._began:
            await self._began.wait_for(lambda: len(self.calls) >= count)


class Stage:
    """Schedules and any number of schedulers over one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.schedules = Schedules(database, KINDS)
        self.now = START

    async def turn_clock(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        await self.database.fetch(
            "UPDATE fake.clock SET at = %(at)s RETURNING at", {"at": self.now}
        )

    async def schedule(self, cron: str = "*/10 * * * *", name: str = "each", **more: Any) -> int:
        request = ScheduleRequest(name=name, job="sync", cron=cron, timezone="UTC", **more)
        return (await self.schedules.create(request)).id

    def scheduler(self, job: Jobs, worker: str = "a", **limits: Any) -> Scheduler:
        ledger = FireLedger(self.database, worker)
        return Scheduler(ledger, {"sync": job}, limits=SchedulerLimits(**limits))

    async def fires(self) -> list[tuple[str, str, str | None]]:
        """Time of day (UTC), status and error of every fire, in order."""
        rows = await self.database.fetch(
            "SELECT due_at, status, error FROM schedule_fire ORDER BY due_at, id"
        )
        return [(f"{due.astimezone(UTC):%H:%M}", status, error) for due, status, error in rows]


async def settled(scheduler: Scheduler) -> None:
    """Wait until nothing is under way in a scheduler."""
    async with asyncio.timeout(60):
        while scheduler.running():
            await asyncio.sleep(0.005)


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with Database(with_fake_clock(database_url)) as database:
        yield Stage(database)
