"""Asking what became of a call whose end nobody saw."""

from __future__ import annotations

import asyncio
import logging
from typing import Generic

from allim.base.clock import Clock
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.sender import Sender
from allim.relay.settlement import Settlement, decide
from allim.relay.settler import Settler
from allim.relay.work import Content, Work

log = logging.getLogger("allim.relay.asking")

RESCUES_WITHOUT_ANSWER = 20
"""After this many rescues nobody is asked any more: asking itself may be what kills relays."""
ASK_AGAIN_SECONDS = 2.0
ASK_AGAIN_LIMIT_SECONDS = 60.0
ASKING_LIMIT_SECONDS = 24 * 3600.0
"""An outage of the other side lasts hours at most; after this an operator must look into it."""


class Asking(Generic[Content]):
    """Asks the sender of one lane, and settles what it says.

    When asking fails nothing is settled, since not knowing must never look like «not sent». One
    that can be asked is asked again, more and more slowly, while this relay lives and keeps the
    lease; else the lease runs out, and whoever rescues the work asks again. In the end it is
    held for an operator where the sender can be asked: as a dead letter it would start its
    fallback, or be replayed, and arrive twice.
    """

    def __init__(
        self,
        lane: str,
        sender: Sender[Content],
        settler: Settler[Content],
        stopping: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._lane = lane
        self._sender = sender
        self._limits = sender.limits
        self._settler = settler
        self._stopping = stopping
        self._clock = clock

    async def reconcile(self, work: Work[Content]) -> None:
        """Ask until there is an answer, and settle that; or give the work up."""
        if work.rescues > RESCUES_WITHOUT_ANSWER:
            self._give_in(work, "crash_loop", f"{work.rescues} leases ran out over it")
            return
        began, pause = self._clock(), ASK_AGAIN_SECONDS
        while (outcome := await self._ask(work)) is None:
            asked_for = self._clock() - began
            if asked_for >= ASKING_LIMIT_SECONDS:
                self._give_in(work, "outcome_unknown", f"no answer in {asked_for / 3600:.0f} hours")
                return
            stops = not self._limits.can_be_asked or await self._stops_within(pause)
            # A deadline in the past: the heartbeat lost it, and whoever has it now asks.
            if stops or work.deadline <= self._clock():
                self._settler.give_up([work])
                return
            pause = min(pause * 2, ASK_AGAIN_LIMIT_SECONDS)
        once = self._limits.at_most_once
        self._settle(decide(work, outcome, self._limits.retry, at_most_once=once))

    async def _ask(self, work: Work[Content]) -> Outcome | None:
        """What became of a call; None when asking failed."""
        try:
            async with asyncio.timeout(self._limits.call_timeout):
                outcome = await self._sender.reconcile(work)
        except Exception as error:
            # The sender's boundary: whatever it raises, nothing is known.
            log.warning("reconcile of %d on lane %s failed: %r", work.id, self._lane, error)
            return None
        if outcome is None:
            return Outcome.cut_short("lease_expired", "the relay that sent it went away")
        if outcome.kind is OutcomeKind.UNKNOWN and self._limits.can_be_asked:
            told = (work.id, self._lane, outcome.code, outcome.detail)
            log.warning("nobody knows yet what became of %d on lane %s: %s, %s", *told)
            return None
        return outcome

    def _give_in(self, work: Work[Content], code: str, detail: str) -> None:
        if self._limits.can_be_asked:
            held = Outcome.unknown(code, detail)
            self._settle(decide(work, held, self._limits.retry, at_most_once=True))
        else:
            self._settle(decide(work, Outcome.refused(code, detail), self._limits.retry))

    def _settle(self, settlement: Settlement[Content]) -> None:
        self._settler.put([settlement], "", 0.0)

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        except TimeoutError:
            return False
