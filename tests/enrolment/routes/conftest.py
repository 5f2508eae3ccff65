"""The routes of the sync over real sockets: an API, a database, and a fake kvca LMS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from allim.app import create_app
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.composition.syncing import open_sync
from allim.database.pool import Database
from allim.enrolment.calls import SyncCalls
from allim.testing.lms.kvca import FakeKvca
from tests.hub.conftest import Answer, Api
from tests.serving import serving

CATEGORY = 303
COURSE = 447
JOB = "/jobs/enrolment-sync"
QUICK = {"LMS_TIMEOUT_SECONDS": "2", "LMS_RETRIES": "0"}


@pytest.fixture
async def kvca() -> AsyncIterator[FakeKvca]:
    """An LMS with one category, one course and 89 enrolments."""
    async with FakeKvca() as kvca:
        kvca.add_course(CATEGORY, COURSE, "파이썬 데이터 분석")
        for number in range(89):
            kvca.enrol(COURSE, f"user{number:02}")
        yield kvca
        kvca.heal()


class Office:
    """An API with a sync behind it, and what operators see."""

    def __init__(
        self, database: Database, api: Api, calls: SyncCalls, stop: Callable[[], Any]
    ) -> None:
        self.database = database
        self.api = api
        self.calls = calls
        self.stop = stop

    async def sync(self, **body: Any) -> Answer:
        return await self.api.post(JOB, json={"category_id": CATEGORY, **body})

    async def runs(self) -> list[tuple[str, str | None]]:
        rows = await self.database.fetch("SELECT status, error_message FROM run_log ORDER BY id")
        return [(status, error) for status, error in rows]

    async def locks(self) -> int:
        return int((await self.database.fetch("SELECT count(*) FROM job_lock"))[0][0])

    async def until_ended(self, count: int = 1) -> None:
        """Wait until that many runs have ended and no lock is left."""
        async with asyncio.timeout(60):
            while True:
                runs = await self.runs()
                ended = [status for status, _ in runs if status != "RUNNING"]
                if len(ended) >= count and not await self.locks():
                    return
                await asyncio.sleep(0.01)


Open = Callable[..., Any]


@pytest.fixture
async def open_office(
    database: Database, channels: Mapping[str, Channel], kvca: FakeKvca
) -> AsyncIterator[Open]:
    """Opens offices with settings of the test's choice; LMS_KIND="" leaves the LMS out."""
    async with AsyncExitStack() as stack:

        async def open_(**settings: str) -> Office:
            environment = Environment({**kvca.environment(), **QUICK, **settings})
            inner = await stack.enter_async_context(AsyncExitStack())
            sync = await inner.enter_async_context(open_sync(database, channels, environment))
            calls = SyncCalls(sync)
            app = create_app(database, channels, environment, sync_calls=calls)
            server = await inner.enter_async_context(AsyncExitStack())
            url = await server.enter_async_context(serving(app))
            session = await inner.enter_async_context(aiohttp.ClientSession())
            return Office(database, Api(url, session, []), calls, server.aclose)

        yield open_
        kvca.heal()


@pytest.fixture
async def office(open_office: Open) -> Office:
    """An office without keys."""
    opened = await open_office()
    assert isinstance(opened, Office)
    return opened
