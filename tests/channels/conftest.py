"""What the tests of outgoing HTTP run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop
from tests.channels.http_by_hand import a_client

from allim.channels.http.client import HttpClient
from allim.testing.http import HttpSink

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

ASYNCIO: Mapping[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
BOTH: Mapping[str, LoopFactory] = {**ASYNCIO, "uvloop": uvloop.new_event_loop}
ON_BOTH_LOOPS = ("test_http", "test_ssrf")
"""The beginnings of files whose tests also run on uvloop: a relay does, and its transports differ
from asyncio's."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """The loops that a test runs on."""
    return BOTH if item.path.name.startswith(ON_BOTH_LOOPS) else ASYNCIO


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    """A client of which nothing is left in the end."""
    async with a_client() as client:
        yield client


@pytest.fixture
async def sink() -> AsyncIterator[HttpSink]:
    """A local server."""
    async with HttpSink() as sink:
        yield sink
