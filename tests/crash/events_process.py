"""A relay of events in a process of its own, that may kill itself at a named moment.

    python -m tests.crash.events_process '{"database": …, "file": …, "kill_at": "after publish"}'

It is the real relay on the real box. What it publishes it appends to a file, one line at a time, so
that the file holds what all relays together sent, in the order they did.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allim.database.pool import Database
from allim.events.relaying.box import OutboxBox
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.box import Fetched, Landed, Settlement
from allim.relay.ordered.limits import OrderedLimits
from allim.relay.ordered.observer import OrderedSilence
from allim.relay.ordered.publisher import DELIVERED, NOT_TRIED, MaySend
from allim.relay.ordered.relay import OrderedRelay
from allim.relay.ordered.turns import Ways
from allim.relay.outcomes import Outcome
from allim.relay.wake import WakeSignal
from tests.crash.dying import Death, say


class MortalBox(OutboxBox):
    """Around what is read and written."""

    def __init__(self, database: Database, death: Death) -> None:
        super().__init__(database)
        self._death = death

    async def fetch(
        self, marks: Sequence[tuple[int, int]], limit: int, *, each: int | None = None
    ) -> Fetched[OutboxMessage]:
        fetched = await super().fetch(marks, limit, each=each)
        if fetched.messages:
            self._death.at("after fetch")
        return fetched

    async def settle(self, relay: str, settlement: Settlement[OutboxMessage]) -> Landed | None:
        self._death.at("before settle")
        landed = await super().settle(relay, settlement)
        say(settled=len(settlement.sent), landed=landed is not None)
        self._death.at("after settle")
        return landed


class FilePublisher:
    """Appends each message to a file; a payload that begins with «refuse» fails once."""

    name = "file"

    def __init__(self, path: Path, death: Death, pace: float) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._death = death
        self._pace = pace

    def begin(self, relay: str) -> None:
        """It has no names."""

    async def fence(self, relay: str) -> None:
        """It has no fence."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        outcomes = []
        stopped = set()
        for message in batch:
            payload = message.payload.decode()
            if message.line in stopped or not may_send():
                outcomes.append(NOT_TRIED)
                continue
            if payload.startswith("refuse") and not message.retry_count:
                stopped.add(message.line)
                outcomes.append(Outcome.retry("refused_once"))
                continue
            os.write(self._file, f"{message.key} {payload} {message.id}\n".encode())
            self._death.at("in publish")
            outcomes.append(DELIVERED)
            await asyncio.sleep(self._pace)
        self._death.at("after publish")
        return outcomes

    async def purge(self) -> None:
        """Nothing waits here."""

    async def close(self) -> None:
        os.close(self._file)

    async def diagnose(self) -> str | None:
        return None


class Loud(OrderedSilence):
    """Says what matters here."""

    def lease_lost(self, relay: str) -> None:
        say(lost=relay)

    def slots(self, held: int, blocked: int) -> None:
        say(held=held)


async def main(options: dict[str, Any]) -> None:
    death = Death(options.get("kill_at"), options.get("kill_on", 1))
    publisher = FilePublisher(Path(options["file"]), death, options.get("pace", 0.0))
    async with Database(options["database"]) as database:
        relay = OrderedRelay(
            MortalBox(database, death),
            Ways({"file": publisher}, lambda _topic: "file"),
            wake=WakeSignal(),
            limits=OrderedLimits(
                lease=options.get("lease", 2.0),
                batch=20,
                batch_max=50,
                retry_after=0.1,
                poll_deaf=0.02,
                due_every=0.05,
                balance_every=0.1,
                pause=0.05,
                grace=5.0,
            ),
            observer=Loud(),
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, relay.stop)
        say(started=os.getpid())
        await relay.run()
    await publisher.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
