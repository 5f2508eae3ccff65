"""The box in memory keeps to what every box keeps to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from allim.base.clock import Clock
from allim.channels.channel import Message
from allim.hub.receipts import FinalReceipt, ReceiptResult
from allim.relay.box import Box
from allim.testing.boxes import (
    REFUSED,
    AttemptState,
    BoxConformance,
    BoxHarness,
    DeliveryState,
    Entry,
)
from allim.testing.clock import HandClock
from allim.testing.memory_box import MemoryBox
from allim.testing.memory_delivery import MemoryDelivery


class MemoryHarness(BoxHarness):
    """A box in memory with a clock turned by hand."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.memory = MemoryBox(clock=self.clock)
        self.box = self.memory

    @property
    def process_clock(self) -> Clock:
        return self.clock

    def another(self) -> Box[Message]:
        return self.memory

    async def add(
        self,
        entry: Entry,
        *,
        notification: UUID | None = None,
        priority: int = 1,
        due_in: float | None = None,
        expires_in: float | None = None,
    ) -> int:
        fields: dict[str, Any] = dict(entry)
        return self.memory.add(
            fields.pop("channel"),
            notification_id=notification,
            priority=priority,
            due_in=due_in,
            expires_in=expires_in,
            **fields,
        )

    async def read(self, delivery_id: int) -> DeliveryState:
        return self._state(self.memory.deliveries[delivery_id])

    async def attempts(self, delivery_id: int) -> Sequence[AttemptState]:
        return [
            AttemptState(
                attempt_no=attempt.attempt_no,
                finished=attempt.finished_at is not None,
                outcome=attempt.outcome,
                error_code=attempt.error_code,
                error=attempt.error,
                http_status=attempt.http_status,
                response=attempt.response,
                provider_id=attempt.provider_id,
                receipt_status=attempt.receipt_status,
                worker=attempt.worker,
            )
            for attempt in self.memory.deliveries[delivery_id].attempt_log
        ]

    async def children(self, delivery_id: int) -> Sequence[DeliveryState]:
        return [
            self._state(delivery)
            for delivery in self.memory.deliveries.values()
            if delivery.parent_id == delivery_id
        ]

    async def make_due(self) -> None:
        for delivery in self.memory.deliveries.values():
            if delivery.next_retry_at is not None:
                delivery.next_retry_at = self.clock.now

    async def lapse_leases(self) -> None:
        for delivery in self.memory.deliveries.values():
            if delivery.lease_until is not None:
                delivery.lease_until = self.clock.now - 1.0

    async def pass_expiry(self) -> None:
        for delivery in self.memory.deliveries.values():
            if delivery.expires_at is not None:
                delivery.expires_at = self.clock.now

    async def cancel(self, notification: UUID) -> None:
        self.memory.cancel(notification)

    async def receive(
        self, delivery_id: int, provider_id: str, receipt: FinalReceipt
    ) -> ReceiptResult:
        return self.memory.receive(delivery_id, provider_id, receipt)

    def _state(self, delivery: MemoryDelivery) -> DeliveryState:
        due = delivery.next_retry_at
        return DeliveryState(
            id=delivery.id,
            channel=delivery.channel,
            recipient=delivery.message.recipient,
            status=delivery.status,
            attempts=delivery.attempts,
            retry_count=delivery.retry_count,
            rescue_count=delivery.rescue_count,
            waits=None if due is None else due - self.clock.now,
            claimed=delivery.claim_token is not None,
            step=delivery.step,
            parent_id=delivery.parent_id,
            superseded_by=delivery.superseded_by,
            error_code=delivery.error_code,
            last_error=delivery.last_error,
            provider_id=delivery.provider_id,
            receipt_status=delivery.receipt_status,
        )


class TestMemoryBox(BoxConformance):
    @pytest.fixture
    def harness(self) -> BoxHarness:
        return MemoryHarness()


def test_a_row_key_that_is_taken_is_refused() -> None:
    box = MemoryBox()
    box.add("SHEET", row_key="A-1024")

    with pytest.raises(ValueError, match="row key"):
        box.add("SHEET", row_key="A-1024")


async def test_an_operator_sends_a_dead_one_again() -> None:
    harness = MemoryHarness()
    delivery = await harness.add_one()
    work = await harness.claim_one()
    await harness.finish(work, REFUSED)

    assert harness.memory.retry(delivery)
    assert not harness.memory.retry(delivery)

    assert (await harness.claim_one()).attempt_no == 2
