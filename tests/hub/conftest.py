"""The hub over real sockets: an HTTP server in this loop, real channels, a real database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import uvicorn
from fastapi import FastAPI

from allim.app import create_app
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.channels.registry import close_channels, make_channels, make_http, make_services
from allim.database.pool import Database

ENVIRONMENT = {
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T000/B000/XXXXXXXX",
}

NOTIFICATION: dict[str, Any] = {
    "source": "payment-service",
    "type": "PAYMENT_FAILED",
    "title": "결제 실패",
    "message": "카드 승인이 거절되었습니다",
    "data": {"order_id": "A-1024"},
    "deliveries": [{"channel": "EMAIL", "recipient": "kim@example.com"}, {"channel": "SLACK"}],
}


@dataclass
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """A client of one running server."""

    def __init__(self, url: str, session: aiohttp.ClientSession, woken: list[set[str]]) -> None:
        self.url = url
        self.session = session
        self.woken = woken

    async def call(self, method: str, path: str, **more: Any) -> Answer:
        async with self.session.request(method, self.url + path, **more) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.call("GET", path, **more)

    async def post(self, path: str, **more: Any) -> Answer:
        return await self.call("POST", path, **more)

    async def create(self, body: Any = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.post("/notifications", json=body or NOTIFICATION, headers=named)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve an app on a free port; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, access_log=False, http="httptools", proxy_headers=False
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await task
    listener.close()


@pytest.fixture
async def channels() -> AsyncIterator[Mapping[str, Channel]]:
    environment = Environment(ENVIRONMENT)
    http = make_http(environment)
    channels = make_channels(environment, make_services(http))
    yield channels
    await close_channels(channels)
    await http.close()


Start = Callable[..., Awaitable[Api]]


@pytest.fixture
async def start_api(database: Database, channels: Mapping[str, Channel]) -> AsyncIterator[Start]:
    """Starts servers with settings of the test's choice."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings: str) -> Api:
            woken: list[set[str]] = []
            app = create_app(
                database,
                channels,
                Environment({**ENVIRONMENT, **settings}),
                on_commit=woken.append,
            )
            url = await stack.enter_async_context(serving(app))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Api(url, session, woken)

        yield start


@pytest.fixture
async def api(start_api: Start) -> Api:
    """A server without keys."""
    return await start_api()


async def count(database: Database, table: str) -> int:
    """How many rows a table has."""
    rows = await database.fetch(f"SELECT count(*) FROM {table}")
    return int(rows[0][0])
