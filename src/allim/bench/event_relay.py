"""A relay of events in a process of its own: ``python -m allim.bench.event_relay null|KAFKA``.

Reads how many events from a line, relays these, and prints one JSON line: how many a second,
and what that cost the process.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence

import uvloop

from allim.base.settings import Environment
from allim.bench.saying import say
from allim.database.pool import Database
from allim.events.publishers.kafka import KafkaPublisher
from allim.events.publishers.kafka_settings import KafkaOptions
from allim.events.publishers.log import NullPublisher
from allim.events.relaying.box import OutboxBox
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.box import Settlement
from allim.relay.ordered.observer import OrderedSilence
from allim.relay.ordered.publisher import Publisher
from allim.relay.ordered.relay import OrderedRelay
from allim.relay.ordered.turns import Ways
from allim.relay.wake import WakeSignal


class Counting(OrderedSilence):
    """Knows when so many are settled, and when the first turn was."""

    def __init__(self, expected: int) -> None:
        self.done = asyncio.Event()
        self.settled_at: list[tuple[float, int]] = []
        self._left = expected

    def settled(self, settlement: Settlement[OutboxMessage], seconds: float) -> None:
        """Count."""
        self.settled_at.append((time.perf_counter(), len(settlement.sent)))
        self._left -= len(settlement.sent)
        if self._left <= 0:
            self.done.set()


def publisher_of(target: str) -> Publisher[OutboxMessage]:
    """`null`, or Kafka at that address."""
    if target == "null":
        return NullPublisher()
    return KafkaPublisher(KafkaOptions.of(Environment({"KAFKA_BOOTSTRAP_SERVERS": target})))


async def relay(target: str, expected: int) -> dict[str, float]:
    """Relay so many events; rates and costs."""
    publisher = publisher_of(target)
    counting = Counting(expected)
    async with Database(os.environ["DATABASE_URL"]) as database:
        relay = OrderedRelay(
            OutboxBox(database),
            Ways({publisher.name: publisher}, lambda _topic: publisher.name),
            wake=WakeSignal(),
            observer=counting,
        )
        cpu = time.process_time()
        running = asyncio.create_task(relay.run())
        await counting.done.wait()
        cpu = time.process_time() - cpu
        relay.stop()
        await running
    await publisher.close()
    return {**_rate(counting.settled_at), "cpu_microseconds": cpu / expected * 1e6}


def _rate(settled_at: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Without the first tenth, in which it starts."""
    total = sum(count for _, count in settled_at)
    passed, since = 0, settled_at[0][0]
    for moment, count in settled_at:
        since = moment
        passed += count
        if passed >= total / 10:
            break
    seconds = settled_at[-1][0] - since
    return {"events": total, "rate": (total - passed) / seconds if seconds else 0.0}


if __name__ == "__main__":
    wanted = int(sys.stdin.readline())
    say(uvloop.run(relay(sys.argv[1], wanted)))
