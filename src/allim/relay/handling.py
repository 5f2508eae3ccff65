"""What is done with the work of one lane, from its claim to its settle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Generic

from allim.base.clock import Clock
from allim.base.tasks import cancel_and_wait
from allim.relay.box import Box, Claim
from allim.relay.dispatch import Dispatch
from allim.relay.heartbeat import Heartbeat
from allim.relay.lane import Lane
from allim.relay.limits import RelayLimits
from allim.relay.observer import Observer
from allim.relay.outcomes import Outcome
from allim.relay.rates import RateKeeper
from allim.relay.settler import Settler
from allim.relay.work import Content, Work

log = logging.getLogger("allim.relay.lane")

LEAST_SECONDS_TO_SETTLE = 2.0


class Handling(Generic[Content]):
    """Claims, guards, sends and settles the work of one lane, and keeps its leases.

    When and how much is its caller's business. `settled` is called whenever work has left.
    """

    def __init__(
        self,
        lane: Lane[Content],
        box: Box[Content],
        *,
        worker: str,
        limits: RelayLimits,
        heartbeat: Heartbeat,
        rates: RateKeeper,
        observer: Observer,
        clock: Clock,
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        self.in_flight = 0
        """How much is claimed and not settled."""
        self._lane = lane
        self._box = box
        self._worker = worker
        self._limits = limits
        self._heartbeat = heartbeat
        self._observer = observer
        self._clock = clock
        self._settled = settled
        self._settler = Settler(lane.name, box, lane.policy, observer, self._ended)
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
        self._settling: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()

    def start(self) -> None:
        """Begin to write settlements."""
        self._settling = asyncio.create_task(self._settler.run())

    async def stop(self, grace: float) -> None:
        """Release what waits, give calls under way `grace` seconds, and settle all of it."""
        assert self._settling is not None
        deadline = self._clock() + grace
        await self.dispatch.stop(grace)
        self._settler.close()
        await asyncio.wait(
            [self._settling], timeout=max(deadline - self._clock(), LEAST_SECONDS_TO_SETTLE)
        )
        await cancel_and_wait(self._settling)

    async def all_settled(self) -> None:
        """Wait until nothing is in flight."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()

    async def claim(self, limit: int) -> Claim[Content]:
        """Claim up to `limit`, and keep its leases from now on; `begin` sends it.

        Raises DatabaseUnavailable, and whatever the lane's policy raises.
        """
        claim = await self._box.claim(
            self._lane.name,
            limit=limit,
            lease=self._limits.lease,
            worker=self._worker,
            policy=self._lane.policy,
        )
        if claim.works:
            self._observer.claimed(self._lane.name, len(claim.works))
            self._began(claim.works)
        return claim

    def begin(self, claim: Claim[Content]) -> None:
        """Send what was claimed, but for what the policy refused in the claim itself."""
        works, refused = claim.works, claim.refused
        for work in works:
            if work.id in refused:
                self.dispatch.settle([work], [refused[work.id]])
        rest = [work for work in works if work.id not in refused] if refused else works
        if rest:
            self.dispatch.start(self._deliver(rest))

    def release(self, claim: Claim[Content]) -> None:
        """Give back what was claimed and is not to be sent after all."""
        self.dispatch.settle(claim.works, [Outcome.released()])

    async def rescue(self, limit: int) -> Sequence[Work[Content]]:
        """Take over work whose lease ran out, and begin to find out what became of it.

        Raises DatabaseUnavailable.
        """
        lost = await self._box.rescue(
            self._lane.name, limit=limit, lease=self._limits.lease, worker=self._worker
        )
        if lost:
            self._observer.rescued(self._lane.name, len(lost))
        if self.dispatch.is_stopping:
            # Nobody is left here to ask about them: their new leases run out, and the next one
            # that takes them over does.
            return ()
        if lost:
            self._began(lost)
            for work in lost:
                self.dispatch.start(self.dispatch.reconcile(work))
        return lost

    async def _deliver(self, works: Sequence[Work[Content]]) -> None:
        try:
            against = await self._guard(works)
        except asyncio.CancelledError:
            self.dispatch.settle(works, [Outcome.released()])
            raise
        for work in works:
            if work.id in against:
                self.dispatch.settle([work], [against[work.id]])
        rest = [work for work in works if work.id not in against] if against else works
        await self.dispatch.send(rest)

    async def _guard(self, works: Sequence[Work[Content]]) -> Mapping[int, Outcome]:
        if self._lane.policy is None:
            return {}
        try:
            async with asyncio.timeout(self._lane.sender.limits.call_timeout):
                return await self._lane.policy.guard(works)
        except Exception as error:
            # The policy's boundary: when the check itself fails, nothing is sent.
            log.warning("the guard of lane %s failed: %r", self._lane.name, error)
            detail = f"the check before the send failed: {error!r}"
            outcome = Outcome.fault("guard_failed", detail)
            return {work.id: outcome for work in works}

    def _began(self, works: Sequence[Work[Content]]) -> None:
        self.in_flight += len(works)
        self._heartbeat.watch(works)

    def _ended(self, works: Sequence[Work[Content]]) -> None:
        self.in_flight -= len(works)
        self._heartbeat.forget(works)
        if not self.in_flight:
            self._idle.set()
        self._settled()
