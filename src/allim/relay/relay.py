"""The relay: runs lanes, keeps their leases, rescues and expires, and stops gracefully."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import ConfigurationError, DatabaseUnavailable
from allim.base.ids import uuid7
from allim.base.tasks import cancel_and_wait
from allim.relay.box import Box
from allim.relay.heartbeat import Heartbeat
from allim.relay.lane import Lane
from allim.relay.lane_runner import LaneRunner
from allim.relay.limits import RelayLimits
from allim.relay.observer import Observer, Silence
from allim.relay.rates import LocalRates, RateKeeper
from allim.relay.wake import WakeSignal
from allim.relay.work import Content

log = logging.getLogger("allim.relay")


class Relay(Generic[Content]):
    """Takes work out of one box through any number of lanes.

    Any number of relays may run on one box; nothing but the box coordinates them.
    """

    def __init__(
        self,
        box: Box[Content],
        lanes: Sequence[Lane[Content]],
        *,
        wake: WakeSignal,
        limits: RelayLimits | None = None,
        rates: RateKeeper | None = None,
        observer: Observer | None = None,
        worker: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._box = box
        self._limits = limits or RelayLimits()
        self._observer = observer or Silence()
        self.worker = worker or worker_name()
        self._heartbeat = Heartbeat(box.lease_keeper(), lease=self._limits.lease, clock=clock)
        self._stopping = asyncio.Event()
        for lane in lanes:
            if lane.sender.limits.call_timeout >= self._limits.lease:
                raise ConfigurationError(
                    f"{lane.name}: a call may take {lane.sender.limits.call_timeout:g} s, but its"
                    f" lease is {self._limits.lease:g} s; no call may outlive its lease"
                )
        self.lanes = [
            LaneRunner(
                lane,
                box,
                worker=self.worker,
                limits=self._limits,
                heartbeat=self._heartbeat,
                rates=rates or LocalRates(clock),
                wake=wake,
                observer=self._observer,
                clock=clock,
            )
            for lane in lanes
        ]

    async def run(self) -> None:
        """Run until `stop` is called and everything in flight has ended or was released."""
        self._heartbeat.start()
        log.info("relay %s takes %s", self.worker, ", ".join(lane.name for lane in self.lanes))
        chores = [
            asyncio.create_task(self._every(self._limits.rescue_every, self._rescue)),
            asyncio.create_task(self._every(self._limits.expire_every, self._expire)),
        ]
        try:
            await self._run_lanes()
        finally:
            await cancel_and_wait(*chores)
            await asyncio.to_thread(self._heartbeat.stop)
            log.info("relay %s has stopped", self.worker)

    def stop(self) -> None:
        """Claim no more, finish or release what is in flight, then let `run` return."""
        self._stopping.set()
        for lane in self.lanes:
            lane.stop()

    async def _run_lanes(self) -> None:
        running = [asyncio.create_task(lane.run()) for lane in self.lanes]
        try:
            await asyncio.gather(*running)
        finally:
            # Where one ended by a bug, the others end too: who runs us starts all of it again.
            self.stop()
            await asyncio.gather(*running, return_exceptions=True)

    async def _rescue(self) -> None:
        for lane in self.lanes:
            await lane.rescue()

    async def _expire(self) -> None:
        if count := await self._box.expire():
            self._observer.expired(count)

    async def _every(self, seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await chore()
            except DatabaseUnavailable as error:
                self._observer.database_lost("", str(error))
            except Exception:
                # The chore's own boundary: it runs again at its next turn.
                log.exception("a chore of relay %s failed", self.worker)
            await asyncio.sleep(seconds)


def worker_name() -> str:
    """A name for this relay that tells host and process, and is never used twice."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid7().hex[-6:]}"
