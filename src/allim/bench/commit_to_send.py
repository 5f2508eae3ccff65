"""From a commit to the call of the channel, where API and relay share one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import uvloop

from allim.base.settings import Environment
from allim.bench.figures import Figure, at_most, plain, quantile
from allim.bench.stage import Stage
from allim.channels.channel import Message
from allim.channels.log import LogChannel
from allim.channels.registry import make_http, make_services
from allim.channels.sending import sending
from allim.database.pool import Database
from allim.hub.coalescer import Coalescer
from allim.hub.creation import prepare
from allim.hub.delivery_box import DeliveryBox
from allim.hub.model import NotificationRequest
from allim.relay.lane import Lane
from allim.relay.outcomes import Outcome
from allim.relay.relay import Relay
from allim.relay.sender import RecordProviderId, SendingLimits
from allim.relay.wake import WakeSignal
from allim.relay.work import Work

CASE = "wake"
PER_SECOND = 20
WARM_UP = 20


class Probe(LogChannel):
    """A channel that only notes when it was called."""

    called_at = 0.0
    called: asyncio.Event

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        """Note the time."""
        self.called_at = time.perf_counter()
        self.called.set()
        return [Outcome.delivered() for _ in batch]


def run(stage: Stage, *, seconds: float = 10.0) -> Iterator[Figure]:
    """Store at 20/s; from the end of the commit to the call of the channel."""
    stage.clear()
    delays = uvloop.run(_delays(stage.url, int(seconds * PER_SECOND)))
    milliseconds = [delay * 1000 for delay in delays]
    yield at_most(CASE, "commit to send, one process, p50", quantile(milliseconds, 0.5), "ms", 2.0)
    yield plain(CASE, "commit to send, one process, p99", quantile(milliseconds, 0.99), "ms")


async def _delays(url: str, count: int) -> list[float]:
    environment = Environment({})
    http = make_http(environment)
    probe = Probe(
        sending(environment, "LOG", timeout=10.0, limits=SendingLimits(batch=500)),
        make_services(http),
    )
    probe.called = asyncio.Event()
    signal = WakeSignal()
    committed_at = 0.0

    def on_commit(lanes: set[str]) -> None:
        nonlocal committed_at
        committed_at = time.perf_counter()
        signal.wake(lanes)

    request = NotificationRequest.model_validate(
        {"source": "bench", "type": "PING", "title": "ping", "deliveries": [{"channel": "LOG"}]}
    )
    delays = []
    async with Database(url) as database:
        relay = Relay(DeliveryBox(database), [Lane("LOG", probe)], wake=signal)
        coalescer = Coalescer(database, on_commit)
        running = asyncio.create_task(relay.run())
        next_at = time.perf_counter()
        for _ in range(count + WARM_UP):
            next_at += 1 / PER_SECOND
            await asyncio.sleep(max(next_at - time.perf_counter(), 0))
            probe.called.clear()
            await coalescer.store(prepare(request, {"LOG": probe}))
            async with asyncio.timeout(10):
                await probe.called.wait()
            delays.append(probe.called_at - committed_at)
        relay.stop()
        await running
        await coalescer.close()
    await http.close()
    return delays[WARM_UP:]
