"""The rows of a box in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from allim.channels.channel import Message
from allim.hub.settling import ERROR_LIMIT, PROVIDER_ID_LIMIT, STATUS_AFTER, storable
from allim.hub.status import DeliveryStatus, Step
from allim.relay.outcomes import RESPONSE_LIMIT, OutcomeKind
from allim.relay.rates import RESERVED
from allim.relay.settlement import Settlement
from allim.relay.work import Work

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

    def begin(self, token: str, now: float, lease: float, worker: str) -> None:
        """Open an attempt."""
        self.status = DeliveryStatus.PROCESSING
        self.claim_token, self.lease_until = token, now + lease
        self.attempts += 1
        self.receipt_status = None
        self.attempt_log.append(MemoryAttempt(self.attempts, now, worker))

    def work(self, now: float) -> Work[Message]:
        """What the engine is given of it while its claim holds."""
        waited = now - (self.next_retry_at or 0.0)
        return Work(
            id=self.id,
            claim_token=self.claim_token or "",
            attempt_no=self.attempts,
            retry_count=self.retry_count,
            max_attempts=self.max_attempts,
            rescues=self.rescue_count,
            deadline=self.lease_until or now,
            content=replace(self.message, provider_id=self.provider_id, reason=self.error_code),
            reserved=self.error_code == RESERVED and waited < RESERVED_SECONDS,
        )

    def end(self, settlement: Settlement[Message], now: float) -> None:
        """Close the attempt that is open, as it was settled."""
        outcome = settlement.outcome
        self.status = DeliveryStatus(STATUS_AFTER[settlement.transition])
        self.claim_token = self.lease_until = None
        self.retry_count += settlement.spent
        if settlement.spent:
            self.rescue_count = 0
        self.next_retry_at = None if settlement.delay is None else now + settlement.delay
        self.error_code = storable(settlement.code, 100)
        self.last_error = storable(outcome.detail, ERROR_LIMIT)
        given = storable(outcome.provider_id, PROVIDER_ID_LIMIT)
        self.provider_id = given or self.provider_id
        self.provider_message_id = (
            storable(outcome.provider_message_id, PROVIDER_ID_LIMIT) or self.provider_message_id
        )
        attempt = self.attempt_log[-1]
        attempt.finished_at, attempt.outcome = now, outcome.kind
        attempt.error_code, attempt.error = self.error_code, self.last_error
        attempt.http_status = outcome.http_status
        attempt.response = storable(outcome.response, RESPONSE_LIMIT)
        attempt.provider_id = given or attempt.provider_id

    def child(
        self, identity: int, entry: Entry, step: Step, fallback: Sequence[Entry]
    ) -> MemoryDelivery:
        """One that follows it: what the entry does not name, it inherits."""
        own = self.message
        payload = dict(entry.get("payload", {}))
        message = replace(
            own,
            delivery_id=identity,
            channel=entry["channel"],
            recipient=entry.get("recipient", own.recipient),
            title=payload.pop("title", own.title),
            message=payload.pop("message", own.message),
            payload=payload,
            template_code=entry.get("template_code"),
            row_key=entry.get("row_key"),
            guard=entry.get("guard", own.guard),
        )
        return MemoryDelivery(
            identity,
            message,
            self.priority,
            entry.get("max_attempts", self.max_attempts),
            entry.get("then", ()),
            fallback,
            step,
            self.id,
            expires_at=self.expires_at,
        )

    def copied(self) -> MemoryDelivery:
        """As it stands now, to go back to."""
        return replace(self, attempt_log=[replace(attempt) for attempt in self.attempt_log])


def is_past(delivery: MemoryDelivery, now: float) -> bool:
    """Whether its `expires_at` has come."""
    return delivery.expires_at is not None and delivery.expires_at <= now


def row_key_of(delivery: MemoryDelivery) -> tuple[str, str, int | None] | None:
    """Its row key with what it is unique in, or None."""
    message = delivery.message
    if message.row_key is None:
        return None
    return message.channel, message.row_key, message.tenant_id
