"""What the tests of outgoing HTTP run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

ASYNCIO: Mapping[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
BOTH: Mapping[str, LoopFactory] = {**ASYNCIO, "uvloop": uvloop.new_event_loop}
ON_BOTH_LOOPS = ("test_http", "test_ssrf")
"""The beginnings of files whose tests also run on uvloop: a relay does, and its transports differ
from asyncio's."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """The loops that a test runs on."""
    return BOTH if item.path.name.startswith(ON_BOTH_LOOPS) else ASYNCIO
