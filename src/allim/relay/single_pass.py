"""One pass over one lane: what is due is claimed once, sent and settled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import ConfigurationError, DatabaseUnavailable
from allim.relay.box import Box, Claim
from allim.relay.handling import Handling
from allim.relay.heartbeat import Heartbeat
from allim.relay.lane import Lane
from allim.relay.limits import RelayLimits
from allim.relay.observer import Observer, Settled, Silence
from allim.relay.rates import LocalRates, RateKeeper
from allim.relay.relay import worker_name
from allim.relay.settlement import Transition
from allim.relay.work import Content

PATIENCE_SECONDS = 20.0
"""How long claimed work waits for its turn before it is put off: nobody comes for it soon."""


@dataclass(frozen=True, slots=True)
class PassFigures:
    """What one pass did.

    `dead` counts what waits for an operator, `snoozed` what was put off without spending a try.
    `completed` are the ids of what arrived. What had to be taken over from a dead relay is
    claimed again unless it turns out to have arrived: then it counts as sent only.
    """

    claimed: int = 0
    sent: int = 0
    failed: int = 0
    dead: int = 0
    snoozed: int = 0
    skipped: int = 0
    completed: frozenset[int] = frozenset()


class SinglePass(Generic[Content]):
    """Makes passes over the lanes of one box, beside any number of relays and other passes.

    A pass is a relay's life in short: what a dead one left behind is taken over, what has
    expired is ended, what is due is claimed (once), sent under the same limits, policies and
    rates, and settled.
    """

    def __init__(
        self,
        box: Box[Content],
        *,
        limits: RelayLimits | None = None,
        rates: RateKeeper | None = None,
        observer: Observer | None = None,
        worker: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._box = box
        self._limits = replace(limits or RelayLimits(), patience=PATIENCE_SECONDS)
        self._rates = rates or LocalRates(clock)
        self._observer = observer or Silence()
        self._worker = worker or worker_name()
        self._clock = clock

    async def run(self, lane: Lane[Content], limit: int) -> PassFigures:
        """Claim up to `limit` pieces of due work of a lane, and see them through.

        Ends within PATIENCE_SECONDS and twice the longest call (a call under way, and before it
        what asks about a dead relay's), and then some for the database. Where it is cancelled
        what waits is released, calls under way are cut short, and both are settled.

        Raises DatabaseUnavailable when nothing could be claimed for it, ConfigurationError for
        a sender whose calls could outlive their lease.
        """
        longest = lane.sender.limits.call_timeout
        if longest >= self._limits.lease:
            raise ConfigurationError(
                f"{lane.name}: a call may take {longest:g} s, but its lease is"
                f" {self._limits.lease:g} s; no call may outlive its lease"
            )
        heartbeat = Heartbeat(self._box.lease_keeper(), lease=self._limits.lease, clock=self._clock)
        tally = _Tally(self._observer)
        handling = Handling(
            lane,
            self._box,
            worker=self._worker,
            limits=self._limits,
            heartbeat=heartbeat,
            rates=self._rates,
            observer=tally,
            clock=self._clock,
        )
        heartbeat.start()
        handling.start()
        try:
            if expired := await self._box.expire():
                tally.expired(expired)
            await handling.rescue(limit)
            await self._until_settled(handling, longest)
            for claim in await self._claims(handling, limit):
                handling.begin(claim)
            await self._until_settled(handling, PATIENCE_SECONDS + longest)
        finally:
            await handling.stop(0.0)
            await asyncio.to_thread(heartbeat.stop)
        return tally.figures()

    async def _until_settled(self, handling: Handling[Content], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds + self._limits.grace):
                await handling.all_settled()
        except TimeoutError:
            words = "what became of the claimed work could not be written"
            raise DatabaseUnavailable(words) from None

    async def _claims(self, handling: Handling[Content], limit: int) -> Sequence[Claim[Content]]:
        """Everything that is due now, up to `limit`; nothing is sent before all of it is claimed.

        One claim takes timed work for half of it only, and more of it may be due. Sending in
        between could bring work back that is due at once, and it would go out twice.
        """
        claims: list[Claim[Content]] = []
        left = limit
        while left > 0:
            try:
                claim = await handling.claim(left)
            except BaseException as error:
                if claims and isinstance(error, DatabaseUnavailable):
                    break
                # What was claimed before is not sent by anybody now; it must not wait for its
                # lease to run out, nor look as if it might have been sent.
                for claimed in claims:
                    handling.release(claimed)
                raise
            claims.append(claim)
            left -= len(claim.works)
            if not claim.works or not claim.look_again:
                break
        return claims


class _Tally:
    """Counts what landed; tells all of it to the process's own observer."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._claimed = 0
        self._ways: Counter[Transition] = Counter()
        self._completed: set[int] = set()

    def figures(self) -> PassFigures:
        """The figures so far."""
        ways = self._ways
        return PassFigures(
            claimed=self._claimed,
            sent=ways[Transition.COMPLETE] + ways[Transition.ACCEPT],
            failed=ways[Transition.RETRY],
            dead=ways[Transition.BURY] + ways[Transition.HOLD],
            snoozed=ways[Transition.SNOOZE],
            skipped=ways[Transition.SKIP],
            completed=frozenset(self._completed),
        )

    def claimed(self, lane: str, count: int) -> None:
        """Count."""
        self._claimed += count
        self._observer.claimed(lane, count)

    def settled(self, lane: str, batch: Sequence[Settled]) -> None:
        """Count what landed."""
        for item in batch:
            if item.landed:
                self._ways[item.settlement.transition] += 1
                if item.settlement.transition is Transition.COMPLETE:
                    self._completed.add(item.settlement.work.id)
        self._observer.settled(lane, batch)

    def rescued(self, lane: str, count: int) -> None:
        """Pass on."""
        self._observer.rescued(lane, count)

    def expired(self, count: int) -> None:
        """Pass on."""
        self._observer.expired(count)

    def breaker(self, lane: str, target: str, *, is_open: bool) -> None:
        """Pass on."""
        self._observer.breaker(lane, target, is_open=is_open)

    def database_lost(self, lane: str, error: str) -> None:
        """Pass on."""
        self._observer.database_lost(lane, error)
