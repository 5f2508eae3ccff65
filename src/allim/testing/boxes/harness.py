"""What the cases reach a box by, and what they see of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.channels.channel import Message
from allim.hub.receipts import FinalReceipt, ReceiptResult
from allim.hub.status import DeliveryStatus
from allim.relay.box import Box
from allim.relay.outcomes import Outcome
from allim.relay.policy import ChannelPolicy
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import decide
from allim.relay.work import Work

LANE = "LOG"
LEASE = 60.0
RETRY = RetryPolicy(base=60.0, jitter=lambda: 1.0)

Entry = Mapping[str, Any]

WELL = Outcome.delivered()
FAILED = Outcome.retry("http_500", "the other side is ill", http_status=500)
REFUSED = Outcome.refused("http_400", "it says no", http_status=400)


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """How a delivery stands. `waits` is seconds until it is due, None where it has no time."""

    id: int
    channel: str
    recipient: str | None
    status: DeliveryStatus
    attempts: int
    retry_count: int
    rescue_count: int
    waits: float | None
    claimed: bool
    step: str
    parent_id: int | None
    superseded_by: int | None
    error_code: str | None
    last_error: str | None
    provider_id: str | None
    receipt_status: str | None


@dataclass(frozen=True, slots=True)
class AttemptState:
    """One attempt on record."""

    attempt_no: int
    finished: bool
    outcome: str | None
    error_code: str | None
    error: str | None
    http_status: int | None
    response: str | None
    provider_id: str | None
    receipt_status: str | None
    worker: str


class BoxHarness(ABC):
    """A box, and hands that reach what a relay cannot."""

    box: Box[Message]

    @property
    def process_clock(self) -> Clock:
        """The clock that the deadlines of its work are told by."""
        return SYSTEM_CLOCK

    @abstractmethod
    def another(self) -> Box[Message]:
        """Another relay's box on the same store."""

    @abstractmethod
    async def add(
        self,
        entry: Entry,
        *,
        notification: UUID | None = None,
        priority: int = 1,
        due_in: float | None = None,
        expires_in: float | None = None,
    ) -> int:
        """Add a delivery: `channel`, `recipient`, `max_attempts`, `row_key`, `then`, `fallback`."""

    @abstractmethod
    async def read(self, delivery_id: int) -> DeliveryState:
        """How a delivery stands."""

    @abstractmethod
    async def attempts(self, delivery_id: int) -> Sequence[AttemptState]:
        """Its attempts, first one first."""

    @abstractmethod
    async def children(self, delivery_id: int) -> Sequence[DeliveryState]:
        """What follows it, by id."""

    @abstractmethod
    async def make_due(self) -> None:
        """Let all time pass for which work waits."""

    @abstractmethod
    async def lapse_leases(self) -> None:
        """Let every lease run out."""

    @abstractmethod
    async def pass_expiry(self) -> None:
        """Let all time pass after which work must not be sent."""

    @abstractmethod
    async def cancel(self, notification: UUID) -> None:
        """Cancel a notification."""

    @abstractmethod
    async def receive(
        self, delivery_id: int, provider_id: str, receipt: FinalReceipt
    ) -> ReceiptResult:
        """Take in a provider's receipt."""

    async def add_one(self, **fields: Any) -> int:
        """Add a plain delivery."""
        return await self.add({"channel": LANE, "recipient": "kim", **fields})

    async def claim_all(self, lane: str = LANE) -> Sequence[Work[Message]]:
        """Claim what is due of a lane, up to a hundred."""
        return await claim(self.box, lane)

    async def claim_one(self, lane: str = LANE) -> Work[Message]:
        """Claim the one piece of work that is due."""
        (work,) = await claim(self.box, lane)
        return work

    async def finish(
        self, work: Work[Message], outcome: Outcome, *, at_most_once: bool = False
    ) -> bool:
        """Settle as a relay would; whether it landed."""
        settlement = decide(work, outcome, RETRY, at_most_once=at_most_once)
        return await self.box.settle([settlement], None) == {work.id}

    async def send(self, delivery_id: int, outcome: Outcome, *, lane: str = LANE) -> DeliveryState:
        """Claim what is due, and settle this one so; how it stands then."""
        works = {work.id: work for work in await self.claim_all(lane)}
        assert await self.finish(works[delivery_id], outcome)
        return await self.read(delivery_id)

    async def rescue_one(self) -> Work[Message]:
        """Let the leases run out and take over the one piece of work."""
        await self.lapse_leases()
        (work,) = await self.box.rescue(LANE, limit=10, lease=LEASE, worker="rescuer")
        return work


async def claim(
    box: Box[Message],
    lane: str = LANE,
    *,
    limit: int = 100,
    worker: str = "worker",
    policy: ChannelPolicy[Message] | None = None,
) -> Sequence[Work[Message]]:
    """Claim as a relay does: again where the box says that more may be waiting."""
    found = await box.claim(lane, limit=limit, lease=LEASE, worker=worker, policy=policy)
    if found.look_again and not found.works:
        found = await box.claim(lane, limit=limit, lease=LEASE, worker=worker, policy=policy)
    return found.works


def complete_steps(steps: Sequence[Entry]) -> list[dict[str, Any]]:
    """Steps as they are stored: complete, to any depth."""
    return [
        {
            **step,
            "max_attempts": step.get("max_attempts", 8),
            **{name: complete_steps(step[name]) for name in ("then", "fallback") if name in step},
        }
        for step in steps
    ]
