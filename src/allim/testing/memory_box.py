"""A box in memory, for tests: everything a real one does, without a database.

    box = MemoryBox()
    delivery = box.add("EMAIL", recipient="kim@example.com", then=[{"channel": "SLACK"}])
    relay = Relay(box, [Lane("EMAIL", channel)], wake=WakeSignal())

Times are seconds of the clock it is given, so a test may turn them by hand.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.ids import uuid7
from allim.channels.channel import Message
from allim.hub.receipts import FinalReceipt, ReceiptResult
from allim.hub.settling import PROVIDER_ID_LIMIT, storable
from allim.hub.status import DeliveryStatus
from allim.relay.box import Backlog, Claim, LeaseKeeper
from allim.relay.outcomes import Outcome
from allim.relay.policy import ChannelPolicy
from allim.relay.settlement import Settlement, Transition
from allim.relay.work import Work
from allim.testing.memory_delivery import (
    REPLAYABLE,
    WAITING,
    Entry,
    MemoryDelivery,
    is_past,
)
from allim.testing.memory_table import MemoryTable


class MemoryBox:
    """Deliveries in memory. Implements relay.box.Box; for one event loop.

    `wake` is told the channels where a settle left new work. `deliveries` is there to be read.
    A policy's hooks are given the box itself as their transaction.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        wake: Callable[[Collection[str]], None] = lambda _: None,
    ) -> None:
        self._table = MemoryTable()
        self.deliveries = self._table.rows
        self._clock = clock
        self._wake = wake
        # One transaction at a time; the heartbeat's thread extends leases beside them.
        self._turn = asyncio.Lock()
        self._lock = threading.Lock()

    def add(
        self,
        channel: str,
        *,
        recipient: str | None = None,
        title: str | None = None,
        message: str | None = None,
        type: str = "TEST",  # noqa: A002
        source: str = "test",
        data: Mapping[str, Any] | None = None,
        payload: Mapping[str, Any] | None = None,
        template_code: str | None = None,
        row_key: str | None = None,
        tenant_id: int | None = None,
        guard: Mapping[str, Any] | None = None,
        notification_id: UUID | None = None,
        priority: int = 1,
        max_attempts: int = 8,
        then: Sequence[Entry] = (),
        fallback: Sequence[Entry] = (),
        due_in: float | None = None,
        expires_in: float | None = None,
    ) -> int:
        """Add one delivery; its id. `due_in` and `expires_in` are seconds from now.

        Raises ValueError where the row key is taken.
        """
        content = Message(
            delivery_id=self._table.draw_id(),
            notification_id=notification_id or uuid7(),
            channel=channel,
            recipient=recipient,
            title=title,
            message=message,
            type=type,
            source=source,
            data=data or {},
            payload=payload or {},
            created_at=datetime.now(UTC),
            tenant_id=tenant_id,
            template_code=template_code,
            row_key=row_key,
            guard=guard or {},
        )
        now = self._clock()
        delivery = MemoryDelivery(
            content.delivery_id,
            content,
            priority,
            max_attempts,
            then,
            fallback,
            next_retry_at=None if due_in is None else now + due_in,
            expires_at=None if expires_in is None else now + expires_in,
        )
        if not self._table.store(delivery):
            raise ValueError(f"{channel} has a delivery with the row key {row_key!r}")
        return delivery.id

    def cancel(self, notification: UUID) -> int:
        """Cancel what is neither under way nor done, and children yet to come; how many."""
        return self._table.cancel(notification)

    def retry(self, delivery_id: int) -> bool:
        """Send a dead, skipped or held delivery again; False where it is none of these."""
        delivery = self.deliveries[delivery_id]
        if delivery.status not in REPLAYABLE:
            return False
        delivery.status, delivery.next_retry_at = DeliveryStatus.PENDING, self._clock()
        delivery.retry_count = delivery.rescue_count = 0
        delivery.error_code = delivery.last_error = delivery.superseded_by = None
        delivery.provider_id = delivery.provider_message_id = delivery.receipt_status = None
        return True

    def receive(self, delivery_id: int, provider_id: str, receipt: FinalReceipt) -> ReceiptResult:
        """Take in a provider's receipt, as `hub.receipts.apply_receipt` does."""
        delivery = self.deliveries.get(delivery_id)
        known_as = storable(provider_id, PROVIDER_ID_LIMIT)
        spoken_of = (
            [a for a in delivery.attempt_log if a.provider_id == known_as] if delivery else []
        )
        if delivery is None or not spoken_of:
            return ReceiptResult.UNKNOWN
        noted = [attempt for attempt in spoken_of if attempt.receipt_status is None]
        if not noted:
            return ReceiptResult.REPEATED
        for attempt in noted:
            attempt.receipt_status = receipt
        expecting = {DeliveryStatus.PROCESSING, DeliveryStatus.ACCEPTED}
        if noted[-1].attempt_no != delivery.attempts or delivery.status not in expecting:
            return ReceiptResult.NOTED
        delivery.receipt_status = receipt
        if delivery.status is DeliveryStatus.PROCESSING:
            return ReceiptResult.STORED
        self._tell(self._table.apply_receipt(delivery))
        return ReceiptResult.APPLIED

    # The box

    async def claim(
        self,
        lane: str,
        *,
        limit: int,
        lease: float,
        worker: str,
        policy: ChannelPolicy[Message] | None,
    ) -> Claim[Message]:
        """Claim due deliveries of one channel and open their attempts."""
        async with self._turn:
            now = self._clock()
            timed, fresh = self._table.due(lane, now)
            timed = timed[: (limit + 1) // 2]
            chosen = timed + fresh[: limit - len(timed)]
            saved = self._table.saved(delivery.id for delivery in chosen)
            token = str(uuid4())
            for delivery in chosen:
                delivery.begin(token, now, lease, worker)
            works = [delivery.work(now) for delivery in chosen]
            refused: Mapping[int, Outcome] = {}
            if policy is not None and works:
                try:
                    refused = await policy.on_attempt(self, works)
                except BaseException:
                    self._table.restore(saved)
                    raise
            return Claim(works, refused, look_again=len(timed) == (limit + 1) // 2)

    async def settle(
        self, settlements: Sequence[Settlement[Message]], policy: ChannelPolicy[Message] | None
    ) -> set[int]:
        """Settle a batch; all of it or, when the policy raises, nothing."""
        async with self._turn:
            saved = self._table.saved(settlement.work.id for settlement in settlements)
            born: list[MemoryDelivery] = []
            landed = []
            with self._lock:
                for settlement in sorted(settlements, key=lambda one: one.work.id):
                    delivery = self._table.held(settlement.work)
                    if delivery is not None:
                        delivery.end(settlement, self._clock())
                        born += self._table.follow(delivery)
                        if settlement.transition is Transition.ACCEPT and delivery.receipt_status:
                            born += self._table.apply_receipt(delivery)
                        landed.append(settlement)
            if policy is not None:
                try:
                    await policy.on_settle(self, landed)
                except BaseException:
                    self._table.restore(saved, born)
                    raise
        self._tell(born)
        return {settlement.work.id for settlement in landed}

    async def record_provider_id(self, works: Sequence[Work[Message]], provider_id: str) -> bool:
        """Store a provider's id on running attempts; False unless all claims are still ours."""
        held = [self._table.held(work) for work in works]
        if None in held:
            return False
        for delivery in held:
            if delivery is not None:
                delivery.provider_id = storable(provider_id, PROVIDER_ID_LIMIT)
                delivery.attempt_log[-1].provider_id = delivery.provider_id
        return True

    async def rescue(
        self, lane: str, *, limit: int, lease: float, worker: str
    ) -> Sequence[Work[Message]]:
        """Take over deliveries whose lease ran out."""
        async with self._turn:
            now = self._clock()
            lost = [
                delivery
                for delivery in self.deliveries.values()
                if delivery.channel == lane
                and delivery.lease_until is not None
                and delivery.lease_until < now
            ]
            lost.sort(key=lambda delivery: delivery.lease_until or 0.0)
            token = str(uuid4())
            for delivery in lost[:limit]:
                delivery.claim_token, delivery.lease_until = token, now + lease
                delivery.rescue_count += 1
            return [delivery.work(now) for delivery in lost[:limit]]

    async def expire(self) -> int:
        """Move deliveries past their `expires_at` to EXPIRED."""
        async with self._turn:
            now = self._clock()
            past = [
                delivery
                for delivery in self.deliveries.values()
                if delivery.status in WAITING and is_past(delivery, now)
            ]
            for delivery in past:
                delivery.status, delivery.next_retry_at = DeliveryStatus.EXPIRED, None
                delivery.error_code = "expired"
            return len(past)

    async def next_due(self, lane: str) -> float | None:
        """Seconds until the next timed delivery of a channel is due."""
        now = self._clock()
        times = [
            delivery.next_retry_at
            for delivery in self.deliveries.values()
            if delivery.channel == lane
            and delivery.status in WAITING
            and delivery.next_retry_at is not None
            and not is_past(delivery, now)
        ]
        return max(min(times) - now, 0.0) if times else None

    async def backlog(self) -> Mapping[str, Backlog]:
        """Waiting, failed and dead deliveries by channel; ages are of timed work only."""
        figures = {}
        now = self._clock()
        for channel in {delivery.channel for delivery in self.deliveries.values()}:
            own = [d for d in self.deliveries.values() if d.channel == channel]
            due = [now - d.next_retry_at for d in own if d.status in WAITING and d.next_retry_at]
            figures[channel] = Backlog(
                waiting=sum(d.status is DeliveryStatus.PENDING for d in own),
                failed=sum(d.status is DeliveryStatus.FAILED for d in own),
                dead=sum(d.status in (DeliveryStatus.DEAD, DeliveryStatus.HELD) for d in own),
                oldest_due_age=max((age for age in due if age >= 0), default=None),
            )
        return figures

    def lease_keeper(self) -> LeaseKeeper:
        """A keeper of leases, for the heartbeat's thread."""
        return _MemoryLeaseKeeper(self)

    def extend(self, works: Sequence[Work[Any]], lease: float) -> set[int]:
        """Extend leases to `lease` seconds from now; the ids of those that are still ours."""
        with self._lock:
            held = [delivery for work in works if (delivery := self._table.held(work)) is not None]
            for delivery in held:
                delivery.lease_until = self._clock() + lease
            return {delivery.id for delivery in held}

    def _tell(self, born: Sequence[MemoryDelivery]) -> None:
        if born:
            self._wake({child.channel for child in born})


class _MemoryLeaseKeeper:
    def __init__(self, box: MemoryBox) -> None:
        self._box = box

    def extend(self, works: Sequence[Work[Any]], lease: float) -> set[int]:
        return self._box.extend(works, lease)

    def close(self) -> None:
        pass
