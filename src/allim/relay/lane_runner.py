"""Running a lane: claims as much as can be sent, and waits when there is nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import Generic

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import DatabaseUnavailable
from allim.relay.box import Box
from allim.relay.handling import Handling
from allim.relay.heartbeat import Heartbeat
from allim.relay.lane import Lane
from allim.relay.limits import RelayLimits
from allim.relay.observer import Observer
from allim.relay.rates import RateKeeper
from allim.relay.wake import WakeSignal
from allim.relay.work import Content

log = logging.getLogger("allim.relay.lane")

RESCUE_BATCH = 100
DATABASE_PAUSE_LIMIT_SECONDS = 2.0


class LaneRunner(Generic[Content]):
    """Runs one lane until it is stopped."""

    def __init__(
        self,
        lane: Lane[Content],
        box: Box[Content],
        *,
        worker: str,
        limits: RelayLimits,
        heartbeat: Heartbeat,
        rates: RateKeeper,
        wake: WakeSignal,
        observer: Observer,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = lane.name
        self._box = box
        self._limits = limits
        self._wake = wake
        self._woken = wake.event(lane.name)
        self._observer = observer
        self._room = asyncio.Event()
        self._stopping = asyncio.Event()
        self._handling = Handling(
            lane,
            box,
            worker=worker,
            limits=limits,
            heartbeat=heartbeat,
            rates=rates,
            observer=observer,
            clock=clock,
            settled=self._room.set,
        )
        self.dispatch = self._handling.dispatch

    async def run(self) -> None:
        """Claim and send until stopped; then finish or release what is in flight."""
        self._handling.start()
        try:
            await self._claim_until_stopped()
        finally:
            await self._handling.stop(self._limits.grace)

    def stop(self) -> None:
        """Claim no more; `run` ends when what is in flight has ended, or the grace is over."""
        self._stopping.set()
        self._woken.set()
        self._room.set()

    async def rescue(self) -> int:
        """Take over work whose lease ran out, and find out what became of it; how much.

        Raises DatabaseUnavailable.
        """
        rescued = 0
        while not self._stopping.is_set():
            lost = await self._handling.rescue(RESCUE_BATCH)
            if not lost:
                break
            rescued += len(lost)
        return rescued

    async def _claim_until_stopped(self) -> None:
        pause, woken = self._limits.poll_min, False
        while not self._stopping.is_set():
            limit = min(await self._room_to_claim(), self._limits.claim_batch)
            if limit == 0:
                continue
            self._woken.clear()
            try:
                claim = await self._handling.claim(limit)
            except DatabaseUnavailable as error:
                self._observer.database_lost(self.name, str(error))
                pause = await self._rest(pause)
                continue
            except Exception:
                # The claim's own boundary (a policy's bug): its transaction was rolled back,
                # nothing was spent, and the lane tries again.
                log.exception("a claim on lane %s failed", self.name)
                pause = await self._rest(pause)
                continue
            if claim.works:
                self._handling.begin(claim)
                if not woken:
                    # Found by polling: whoever wrote it sends no wakes, so poll closely.
                    pause = self._limits.poll_min
            if claim.look_again or len(claim.works) >= limit:
                await asyncio.sleep(0)  # lets the sends begin before the next claim
                continue
            pause, woken = await self._idle(pause)

    async def _room_to_claim(self) -> int:
        """How much may be claimed now; 0 after waiting for room, or for a closed target."""
        closed = self.dispatch.seconds_closed()
        if closed > 0:
            await self._wait(self._stopping, closed)
            return 0
        window = self.dispatch.window
        in_flight = self._handling.in_flight
        room = window - in_flight
        # Never one alone: timed work, having half of a claim, would take it every time.
        if in_flight and room < max(window // 4, 2):
            self._room.clear()
            await self._room.wait()
            return 0
        return room

    async def _idle(self, pause: float) -> tuple[float, bool]:
        """Wait for a wake, for the next timed work or for the next poll.

        Answers the pause of the next wait, and whether this one ended with a wake.
        """
        try:
            due = await self._box.next_due(self.name)
        except DatabaseUnavailable:
            due = None
        if due is None:
            wait = pause
        elif due > 0:
            wait = min(pause, max(due, 0.001))
        else:
            # Due just now, or locked by somebody: soon again, but no busy loop.
            wait = min(pause, self._limits.poll_min)
        if await self._wait(self._woken, wait):
            return pause, True
        longest = self._limits.poll_max if self._wake.listening else self._limits.poll_max_deaf
        return min(pause * 2, longest), False

    async def _rest(self, pause: float) -> float:
        await self._wait(self._stopping, pause)
        return min(pause * 2, DATABASE_PAUSE_LIMIT_SECONDS)

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await event.wait()
        except TimeoutError:
            return False
