"""One lane: claims work of one kind, as much as can be sent, and waits when there is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import DatabaseUnavailable
from allim.base.tasks import cancel_and_wait
from allim.relay.box import Box
from allim.relay.dispatch import Dispatch
from allim.relay.heartbeat import Heartbeat
from allim.relay.limits import RelayLimits
from allim.relay.observer import Observer
from allim.relay.outcomes import Outcome
from allim.relay.policy import ChannelPolicy
from allim.relay.rates import RateKeeper
from allim.relay.sender import Sender
from allim.relay.settler import Settler
from allim.relay.wake import WakeSignal
from allim.relay.work import Content, Work

log = logging.getLogger("allim.relay.lane")

RESCUE_BATCH = 100
DATABASE_PAUSE_LIMIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Lane(Generic[Content]):
    """What one lane sends by, and under which rules."""

    name: str
    sender: Sender[Content]
    policy: ChannelPolicy[Content] | None = None


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
        self._policy = lane.policy
        self._guard_timeout = lane.sender.limits.call_timeout
        self._box = box
        self._worker = worker
        self._limits = limits
        self._heartbeat = heartbeat
        self._wake = wake
        self._woken = wake.event(lane.name)
        self._observer = observer
        self._clock = clock
        self._settler = Settler(lane.name, box, lane.policy, observer, self._finished)
        self.dispatch = Dispatch(
            lane.name,
            lane.sender,
            box.record_provider_id,
            self._settler,
            limits=limits,
            rates=rates,
            observer=observer,
            clock=clock,
        )
        self._in_flight = 0
        self._room = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Claim and send until stopped; then finish or release what is in flight."""
        settling = asyncio.create_task(self._settler.run())
        try:
            await self._claim_until_stopped()
        finally:
            deadline = self._clock() + self._limits.grace
            await self.dispatch.stop(self._limits.grace)
            self._settler.close()
            await asyncio.wait([settling], timeout=max(deadline - self._clock(), 2.0))
            await cancel_and_wait(settling)

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
            lost = await self._box.rescue(
                self.name, limit=RESCUE_BATCH, lease=self._limits.lease, worker=self._worker
            )
            if not lost:
                break
            rescued += len(lost)
            self._observer.rescued(self.name, len(lost))
            self._began(lost)
            for work in lost:
                self.dispatch.start(self.dispatch.reconcile(work))
        return rescued

    async def _claim_until_stopped(self) -> None:
        pause, woken = self._limits.poll_min, False
        while not self._stopping.is_set():
            limit = min(await self._room_to_claim(), self._limits.claim_batch)
            if limit == 0:
                continue
            self._woken.clear()
            try:
                claim = await self._box.claim(
                    self.name,
                    limit=limit,
                    lease=self._limits.lease,
                    worker=self._worker,
                    policy=self._policy,
                )
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
                self._observer.claimed(self.name, len(claim.works))
                self._begin(claim.works, claim.refused)
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
        room = window - self._in_flight
        # Never one alone: timed work, having half of a claim, would take it every time.
        if self._in_flight and room < max(window // 4, 2):
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

    def _begin(self, works: Sequence[Work[Content]], refused: Mapping[int, Outcome]) -> None:
        self._began(works)
        for work in works:
            if work.id in refused:
                self.dispatch.settle([work], [refused[work.id]])
        rest = [work for work in works if work.id not in refused] if refused else works
        if rest:
            self.dispatch.start(self._deliver(rest))

    async def _deliver(self, works: Sequence[Work[Content]]) -> None:
        against = await self._guard(works)
        for work in works:
            if work.id in against:
                self.dispatch.settle([work], [against[work.id]])
        rest = [work for work in works if work.id not in against] if against else works
        await self.dispatch.send(rest)

    async def _guard(self, works: Sequence[Work[Content]]) -> Mapping[int, Outcome]:
        if self._policy is None:
            return {}
        try:
            async with asyncio.timeout(self._guard_timeout):
                return await self._policy.guard(works)
        except Exception as error:
            # The policy's boundary: when the check itself fails, nothing is sent.
            log.warning("the guard of lane %s failed: %r", self.name, error)
            detail = f"the check before the send failed: {error!r}"
            outcome = Outcome.fault("guard_failed", detail)
            return {work.id: outcome for work in works}

    def _began(self, works: Sequence[Work[Content]]) -> None:
        self._in_flight += len(works)
        self._heartbeat.watch(works)

    def _finished(self, works: Sequence[Work[Content]]) -> None:
        self._in_flight -= len(works)
        self._heartbeat.forget(works)
        self._room.set()
