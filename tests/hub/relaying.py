"""A relay over the test's database, in this loop, with the policies that a test gives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from allim.channels.channel import Channel, Message
from allim.database.pool import Database
from allim.hub.delivery_box import DeliveryBox
from allim.relay.lane import Lane
from allim.relay.limits import RelayLimits
from allim.relay.observer import Observer, Silence
from allim.relay.policy import ChannelPolicy
from allim.relay.relay import Relay
from allim.relay.wake import WakeSignal

PATIENCE_SECONDS = 60.0
"""Only met by a test that fails."""


@asynccontextmanager
async def relaying(
    database: Database,
    channel: Channel,
    policy: ChannelPolicy[Message],
    observer: Observer | None = None,
    **limits: Any,
) -> AsyncIterator[None]:
    """A relay of one channel, until the end of the block."""
    observer = observer or Silence()
    usual: dict[str, Any] = {"poll_max": 0.1, "poll_max_deaf": 0.1, "expire_every": 0.1}
    relay = Relay(
        DeliveryBox(database, beside=observer.settled),
        [Lane(channel.name, channel, policy)],
        wake=WakeSignal(),
        observer=observer,
        limits=RelayLimits(**{**usual, **limits}),
    )
    running = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        relay.stop()
        await running


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> None:
    """Wait until something is true."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"waited in vain for {what}")
