"""Taking in what providers report of texts, beside a relay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.channels.solapi.channel import SolapiChannel
from allim.composition.delivering import Wakes
from allim.database.pool import Database
from allim.messaging.policies import receipt_policy
from allim.messaging.receipt_settings import ReceiptSettings
from allim.messaging.receipts import LANE, ReceiptCheck
from allim.relay.wake import WakeSignal


@asynccontextmanager
async def taking_in_reports(
    database: Database,
    channels: Mapping[str, Channel],
    environment: Environment,
    signal: WakeSignal,
    wakes: Wakes,
) -> AsyncIterator[None]:
    """Ask Solapi what became of texts, as long as there is an account to ask by."""
    live = {
        name: channel
        for name, channel in channels.items()
        if isinstance(channel, SolapiChannel) and channel.client is not None
    }
    client = next((channel.client for channel in live.values()), None)
    if client is None:
        yield
        return
    check = ReceiptCheck(
        database,
        client,
        channels={name: channel.limits.retry for name, channel in live.items()},
        policy=receipt_policy(environment),
        wake=wakes,
        poll=environment.read(ReceiptSettings).solapi_report_poll_seconds,
        woken=signal.event(LANE),
    )
    async with check:
        yield
