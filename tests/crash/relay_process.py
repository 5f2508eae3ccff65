"""A relay in a process of its own, that may kill itself at a named moment.

    python relay_process.py '{"database": …, "kill_at": "after the call", "kill_on": 3}'

Prints one line of JSON for each thing it does. It is the real relay on the real box and the
real webhook channel; only the moments of death are put around them here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from allim.base.settings import Environment
from allim.channels.channel import Channel, Message
from allim.database.pool import Database
from allim.hub.delivery_box import DeliveryBox
from allim.relay.box import Claim
from allim.relay.lane import Lane
from allim.relay.limits import RelayLimits
from allim.relay.observer import Settled, Silence
from allim.relay.outcomes import Outcome
from allim.relay.policy import ChannelPolicy, OpenPolicy
from allim.relay.relay import Relay
from allim.relay.retry import RetryPolicy
from allim.relay.sender import RecordProviderId, Sender
from allim.relay.settlement import Settlement
from allim.relay.wake import WakeSignal
from allim.relay.work import Work
from tests.crash.dying import Death, say
from tests.foundations import open_channels

SHORT_LEASE = 2.5
"""For those that are killed, so that their work is soon rescued."""
LONG_LEASE = 30.0
"""For those that live: however busy the machine is, they lose no lease."""
LIMITS = RelayLimits(
    poll_max_deaf=0.2,
    rescue_every=0.1,
    claim_batch=8,
    patience=0.3,
    grace=2.0,
)
ENVIRONMENT = {"ALLIM_SSRF_ALLOW": "127.0.0.0/8"}
WEBHOOK = "WEBHOOK"


class MortalPolicy(OpenPolicy):
    """Inside the claiming and the settling transaction, after their statements."""

    def __init__(self, death: Death) -> None:
        self._death = death

    async def on_attempt(self, tx: Any, batch: Sequence[Work[Any]]) -> Mapping[int, Outcome]:
        self._death.at("in the claim")
        return {}

    async def on_settle(self, tx: Any, settled: Sequence[Settlement[Any]]) -> None:
        self._death.at("before commit")


class MortalBox(DeliveryBox):
    """Around the claiming and the settling transaction."""

    def __init__(self, database: Database, death: Death) -> None:
        super().__init__(database)
        self._death = death

    async def claim(
        self,
        lane: str,
        *,
        limit: int,
        lease: float,
        worker: str,
        policy: ChannelPolicy[Message] | None,
    ) -> Claim[Message]:
        self._death.at("before the claim")
        claim = await super().claim(lane, limit=limit, lease=lease, worker=worker, policy=policy)
        if claim.works:
            self._death.at("after the claim")
        return claim

    async def settle(
        self, settlements: Sequence[Settlement[Message]], policy: ChannelPolicy[Message] | None
    ) -> set[int]:
        landed = await super().settle(settlements, policy)
        self._death.at("after commit")
        return landed


class MortalSender:
    """Around the call."""

    def __init__(self, channel: Channel, death: Death, lease: float) -> None:
        self._channel = channel
        self._death = death
        self.limits = replace(
            channel.limits,
            call_timeout=lease * 0.8,
            concurrency=8,
            per_target=4,
            retry=RetryPolicy(base=0.1, maximum=1.0),
        )
        self.only_target = None

    def target(self, content: Message) -> str:
        return self._channel.target(content)

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        self._death.at("before the call")
        outcomes = await self._channel.send(batch, record)
        self._death.at("after the call")
        return outcomes

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        return await self._channel.reconcile(work)

    async def close(self) -> None:
        await self._channel.close()


class Telling(Silence):
    """Tells what was settled, and what could not be."""

    def settled(self, lane: str, batch: Sequence[Settled]) -> None:
        for one in batch:
            say(settled=one.settlement.work.id, landed=one.landed)


async def run(
    database_url: str, death: Death, observer: Silence, stop: asyncio.Event, lease: float
) -> None:
    """Run a relay until it is told to stop."""
    environment = Environment(ENVIRONMENT)
    async with (
        open_channels(environment) as channels,
        Database(database_url, max_size=4) as database,
    ):
        sender: Sender[Message] = MortalSender(channels[WEBHOOK], death, lease)
        relay = Relay(
            MortalBox(database, death),
            [Lane(WEBHOOK, sender, MortalPolicy(death))],
            wake=WakeSignal(),
            limits=replace(LIMITS, lease=lease),
            observer=observer,
        )
        running = asyncio.create_task(relay.run())
        await stop.wait()
        relay.stop()
        await running


async def main(
    database: str, kill_at: str | None = None, kill_on: int = 1, lease: float = SHORT_LEASE
) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    say(running=os.getpid())
    await run(database, Death(kill_at, kill_on), Telling(), stop, lease)


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
