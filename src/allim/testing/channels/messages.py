"""Messages for channels, and sending one without a relay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from allim.channels.channel import Channel, Message
from allim.relay.outcomes import Outcome
from allim.relay.work import Content, Work

CLAIM = "0190163d-8694-739b-aea5-966c26f8ad90"
NOTIFICATION = UUID("0190163d-8694-739b-aea5-966c26f8ad91")


def a_message(recipient: str | None, **parts: Any) -> Message:
    """A message; `parts` are fields of `Message` to be other than usual."""
    usual = Message(
        delivery_id=4711,
        notification_id=NOTIFICATION,
        channel="TEST",
        recipient=recipient,
        title="결제 실패",
        message="카드 승인이 거절되었습니다",
        type="PAYMENT_FAILED",
        source="payment-service",
        data={"order_id": "A-1024"},
        payload={},
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    return replace(usual, **parts)


def a_work(message: Content, work_id: int = 4711) -> Work[Content]:
    """A claimed piece of work for its first attempt, with a lease that does not end."""
    return Work(work_id, CLAIM, 1, 0, 8, 0, float("inf"), message)


async def record_nothing(works: Sequence[Work[Message]], provider_id: str) -> bool:
    """A `RecordProviderId` that says yes."""
    return True


async def send_one(channel: Channel, message: Message) -> Outcome:
    """Send one message; its outcome."""
    (outcome,) = await channel.send([a_work(message)], record_nothing)
    return outcome
