"""The rows of a box in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from allim.channels.channel import Message
from allim.hub.status import DeliveryStatus, Step
from allim.relay.outcomes import OutcomeKind

WAITING = frozenset({DeliveryStatus.PENDING, DeliveryStatus.FAILED})
REPLAYABLE = frozenset({DeliveryStatus.DEAD, DeliveryStatus.SKIPPED, DeliveryStatus.HELD})
RESERVED_SECONDS = 5.0

Entry = Mapping[str, Any]
"""A delivery that follows another: `channel`, and what it does not inherit from its parent."""


@dataclass(slots=True)
class MemoryAttempt:
    """One attempt on record; `finished_at` is None while it is under way."""

    attempt_no: int
    started_at: float
    worker: str
    finished_at: float | None = None
    outcome: OutcomeKind | None = None
    error_code: str | None = None
    error: str | None = None
    http_status: int | None = None
    response: str | None = None
    provider_id: str | None = None
    receipt_status: str | None = None


@dataclass(slots=True)
class MemoryDelivery:
    """One delivery; the names are those of the columns in PostgreSQL."""

    id: int
    message: Message
    priority: int
    max_attempts: int
    then_steps: Sequence[Entry] = ()
    fallback_steps: Sequence[Entry] = ()
    step: Step = Step.ROOT
    parent_id: int | None = None
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempts: int = 0
    retry_count: int = 0
    rescue_count: int = 0
    next_retry_at: float | None = None
    expires_at: float | None = None
    claim_token: str | None = None
    lease_until: float | None = None
    last_error: str | None = None
    error_code: str | None = None
    provider_id: str | None = None
    provider_message_id: str | None = None
    receipt_status: str | None = None
    superseded_by: int | None = None
    attempt_log: list[MemoryAttempt] = field(default_factory=list)

    @property
    def channel(self) -> str:
        """The lane it is in."""
        return self.message.channel


def is_past(delivery: MemoryDelivery, now: float) -> bool:
    """Whether its `expires_at` has come."""
    return delivery.expires_at is not None and delivery.expires_at <= now


def row_key_of(delivery: MemoryDelivery) -> tuple[str, str, int | None] | None:
    """Its row key with what it is unique in, or None."""
    message = delivery.message
    if message.row_key is None:
        return None
    return message.channel, message.row_key, message.tenant_id
