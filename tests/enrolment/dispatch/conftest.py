"""The alert chain over real sockets: an API, a fake Apps Script, a fake Kakao gateway."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, LiteralString

import aiohttp
import pytest

from allim.app import create_app
from allim.composition.delivering import make_passes
from allim.database.pool import Database
from allim.testing.http import HttpSink
from allim.testing.sheets import FakeAppsScript
from tests.foundations import a_foundation
from tests.hub.conftest import Answer, Api
from tests.serving import serving

SHEET = "/jobs/outbox/sheet-dispatch"
NOTIFICATION = "/jobs/outbox/notification-dispatch"
CHAIN = "/jobs/outbox/dispatch"
EXACT = {"OUTBOX_RETRY_BASE_SECONDS": "60", "OUTBOX_RETRY_MAX_SECONDS": "3600"}


class Chain:
    """An API that sends when it is asked to, and where that goes."""

    def __init__(
        self, database: Database, api: Api, script: FakeAppsScript, kakao: HttpSink
    ) -> None:
        self.database = database
        self.api = api
        self.script = script
        self.kakao = kakao

    async def alert(self, *keys: str) -> None:
        """Ask for a row, and a notice after it, for each key."""
        for key in keys:
            answer = await self.api.create(
                {
                    "source": "enrolment-sync",
                    "type": "NEW",
                    "title": "신규 수강신청",
                    "message": f"{key} 신규",
                    "data": {"source_type": "enrolment_status", "source_id": f"303:447:{key}"},
                    "deliveries": [
                        {"channel": "SHEET", "row_key": key, "then": [{"channel": "KAKAO"}]}
                    ],
                }
            )
            assert answer.status == 202, answer.body

    async def dispatch(self, path: str, body: Any = None) -> Any:
        """Call a dispatch endpoint that works; its answer."""
        answer = await self.api.post(path, json=body if body is not None else {})
        assert answer.status == 200, answer.body
        return answer.json

    async def states(self, view: LiteralString) -> dict[str, int]:
        """How many rows of an outbox stand in each state."""
        rows = await self.database.fetch(f"SELECT status, count(*) FROM {view} GROUP BY 1")
        return dict(rows)

    async def make_due(self) -> None:
        """Let all time pass for which work waits."""
        async with self.database.connection() as connection:
            await connection.execute(
                "UPDATE delivery SET next_retry_at = now() WHERE next_retry_at > now()"
            )

    @property
    def rows(self) -> list[str]:
        """The row keys of the sheet."""
        return sorted(row["row_key"] for row in self.script.rows)


Open = Callable[..., Awaitable[Chain]]


@pytest.fixture
async def open_chain(database: Database) -> AsyncIterator[Open]:
    """Opens a chain with settings of the test's choice; an empty URL is one that is not set."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_(**settings: str) -> Chain:
            script = await stack.enter_async_context(FakeAppsScript())
            kakao = await stack.enter_async_context(HttpSink())
            ours = {"SHEET_WEBHOOK_URL": script.url, "KAKAO_WEBHOOK_URL": f"{kakao.url}/notices"}
            base = await stack.enter_async_context(
                a_foundation(database, {**ours, **EXACT, **settings})
            )
            app = create_app(database, base.channels, base.environment, run_pass=make_passes(base))
            url = await stack.enter_async_context(serving(app))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Chain(database, Api(url, session, []), script, kakao)

        yield open_


@pytest.fixture
async def chain(open_chain: Open) -> Chain:
    """A chain that works."""
    return await open_chain()


def summary(**counts: int) -> Mapping[str, int]:
    """A summary; what is not named is nought."""
    return {"claimed": 0, "sent": 0, "failed": 0, "dead": 0, "created": 0, **counts}


__all__ = ["CHAIN", "NOTIFICATION", "SHEET", "Answer", "Chain", "Open", "summary"]
