"""A world outside for relays to send to, and a relay that runs for one test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from allim.channels.channel import Message
from allim.relay.box import Box
from allim.relay.lane import Lane
from allim.relay.limits import RelayLimits
from allim.relay.observer import Settled, Silence
from allim.relay.outcomes import Outcome
from allim.relay.policy import ChannelPolicy
from allim.relay.rates import RateKeeper
from allim.relay.relay import Relay
from allim.relay.retry import RetryPolicy
from allim.relay.sender import RecordProviderId, SendingLimits
from allim.relay.wake import WakeSignal
from allim.relay.work import Work
from tests.relay.virtual_time import loop_clock

EXACT = RetryPolicy(base=60.0, jitter=lambda: 1.0)
LIMITS = SendingLimits(retry=EXACT)

Answer = Callable[[Work[Message]], Awaitable[Outcome]]


@dataclass
class Call:
    """One call of `send`, as the other side saw it."""

    target: str
    ids: list[int]
    began: float
    deadlines: list[float]
    ended: float | None = None


async def well(work: Work[Message]) -> Outcome:
    """Take it."""
    return Outcome.delivered()


def always(outcome: Outcome) -> Answer:
    """Answer everything so."""

    async def answer(work: Work[Message]) -> Outcome:
        return outcome

    return answer


def after(seconds: float, outcome: Outcome | None = None) -> Answer:
    """Take `seconds`, then answer so."""

    async def answer(work: Work[Message]) -> Outcome:
        await asyncio.sleep(seconds)
        return outcome or Outcome.delivered()

    return answer


class Outside:
    """A sender whose other side answers as a test says; the recipient is the target."""

    def __init__(
        self,
        answer: Answer = well,
        *,
        limits: SendingLimits = LIMITS,
        only_target: str | None = None,
    ) -> None:
        self.answer = answer
        self.limits = limits
        self.only_target = only_target
        self.calls: list[Call] = []
        self.running = 0
        self.most_running = 0
        self.fate: Callable[[Work[Message]], Awaitable[Outcome | None]] | None = None
        self.asked: list[int] = []

    def target(self, content: Message) -> str:
        return content.recipient or "nobody"

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        call = Call(
            self.target(batch[0].content),
            [work.id for work in batch],
            loop_clock(),
            [work.deadline for work in batch],
        )
        self.calls.append(call)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return [await self.answer(work) for work in batch]
        finally:
            self.running -= 1
            call.ended = loop_clock()

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        self.asked.append(work.id)
        return None if self.fate is None else await self.fate(work)

    async def close(self) -> None:
        pass

    def times(self, target: str | None = None) -> list[float]:
        """When calls began, of one target or of all."""
        return [call.began for call in self.calls if target in (None, call.target)]


class Notes(Silence):
    """An observer that remembers."""

    def __init__(self) -> None:
        self.batches: list[Settled] = []
        self.breakers: list[tuple[str, bool]] = []
        self.losses: list[float] = []
        self.rescues = 0

    def settled(self, lane: str, batch: Sequence[Settled]) -> None:
        self.batches.extend(batch)

    def rescued(self, lane: str, count: int) -> None:
        self.rescues += count

    def breaker(self, lane: str, target: str, *, is_open: bool) -> None:
        self.breakers.append((target, is_open))

    def database_lost(self, lane: str, error: str) -> None:
        self.losses.append(loop_clock())


@dataclass
class Running:
    """A relay that runs."""

    relay: Relay[Message]
    wake: WakeSignal
    notes: Notes
    task: asyncio.Task[None]
    stopped: bool = field(default=False)

    async def stop(self) -> None:
        """Stop it and wait for its end."""
        self.relay.stop()
        await self.task


@asynccontextmanager
async def running(
    box: Box[Message],
    sender: Outside,
    *,
    lane: str = "LOG",
    policy: ChannelPolicy[Message] | None = None,
    rates: RateKeeper | None = None,
    **limits: Any,
) -> AsyncIterator[Running]:
    """Run a relay of one lane on the loop's own clock."""
    wake, notes = WakeSignal(), Notes()
    relay = Relay(
        box,
        [Lane(lane, sender, policy)],
        wake=wake,
        limits=replace(RelayLimits(), **limits),
        rates=rates,
        observer=notes,
        clock=loop_clock,
    )
    task = asyncio.create_task(relay.run())
    one = Running(relay, wake, notes, task)
    try:
        yield one
    finally:
        await one.stop()
