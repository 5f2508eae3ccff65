"""Taking in what providers report of texts, beside a relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from allim.channels.solapi.channel import SolapiChannel
from allim.composition.foundation import Foundation
from allim.messaging.policies import receipt_policy
from allim.messaging.receipt_settings import ReceiptSettings
from allim.messaging.receipts import LANE, ReceiptCheck


@asynccontextmanager
async def taking_in_reports(base: Foundation) -> AsyncIterator[None]:
    """Ask Solapi what became of texts, as long as there is an account to ask by."""
    live = {
        name: channel
        for name, channel in base.channels.items()
        if isinstance(channel, SolapiChannel) and channel.client is not None
    }
    client = next((channel.client for channel in live.values()), None)
    if client is None:
        yield
        return
    check = ReceiptCheck(
        base.database,
        client,
        channels={name: channel.limits.retry for name, channel in live.items()},
        policy=receipt_policy(base.environment),
        wake=base.wakes,
        poll=base.environment.read(ReceiptSettings).solapi_report_poll_seconds,
        woken=base.signal.event(LANE),
    )
    async with check:
        yield
