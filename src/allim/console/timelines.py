"""Everything that happened to a notification, in one line of time; and who came of whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from allim.hub.audit import AuditRow
from allim.hub.status import NOT_FINAL, DeliveryStatus, Step
from allim.hub.views import AttemptView, DeliveryView, NotificationView
from allim.relay.outcomes import OutcomeKind

_PUT_OFF = (OutcomeKind.SNOOZED, OutcomeKind.RELEASED)


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened: `kind` is its message, ``notifications.happened.<kind>``.

    `attempts` are those of a try; several where a delivery was put off again and again.
    """

    at: datetime
    kind: str
    delivery: DeliveryView | None = None
    attempts: Sequence[AttemptView] = ()
    entry: AuditRow | None = None
    words: Mapping[str, Any] = field(default_factory=dict)
    then: datetime | None = None

    @property
    def attempt(self) -> AttemptView | None:
        """The try, the last of several."""
        return self.attempts[-1] if self.attempts else None

    @property
    def seconds(self) -> float | None:
        """How long the try took."""
        last = self.attempt
        if last is None or last.finished_at is None or len(self.attempts) > 1:
            return None
        return (last.finished_at - last.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Planned:
    """A step that is written down but not there yet."""

    step: Step
    channel: str
    recipient: str | None


@dataclass(frozen=True, slots=True)
class Branch:
    """A delivery with what came of it and what may still come."""

    delivery: DeliveryView
    children: Sequence[Branch]
    planned: Sequence[Planned]


def timeline(notification: NotificationView, entries: Sequence[AuditRow]) -> Sequence[Happening]:
    """Oldest first."""
    happened = [
        *_of_the_whole(notification),
        *(one for delivery in notification.deliveries for one in _of_one(delivery)),
        *(Happening(entry.created_at, "action", entry=entry) for entry in entries),
    ]
    return sorted(happened, key=lambda one: one.at)


def tree(deliveries: Sequence[DeliveryView], parent: int | None = None) -> Sequence[Branch]:
    """The deliveries that were asked for, each with its fallbacks and what follows it."""
    return [
        Branch(d, tree(deliveries, d.id), list(_planned(d)))
        for d in deliveries
        if d.parent_id == parent
    ]


def _of_the_whole(notification: NotificationView) -> Iterator[Happening]:
    at = notification.created_at
    words = {"source": notification.source, "type": notification.type}
    yield Happening(at, "accepted", words=words)
    if notification.scheduled_at is not None:
        yield Happening(at, "scheduled", then=notification.scheduled_at)
    if notification.canceled_at is not None:
        yield Happening(notification.canceled_at, "canceled")


def _of_one(delivery: DeliveryView) -> Iterator[Happening]:
    if delivery.step is not Step.ROOT:
        kind = "then_born" if delivery.step is Step.THEN else "fallback_born"
        yield Happening(
            delivery.created_at, kind, delivery, words={"parent": delivery.parent_id or 0}
        )
    yield from _tries(delivery)
    if delivery.receipt_at is not None:
        yield Happening(
            delivery.receipt_at, "receipt", delivery, words={"receipt": delivery.receipt_status}
        )
    if delivery.status is DeliveryStatus.EXPIRED:
        yield Happening(delivery.updated_at, "expired", delivery)
    if delivery.error_code == "discarded":
        yield Happening(
            delivery.updated_at, "discarded", delivery, words={"reason": delivery.last_error or ""}
        )
    if delivery.next_retry_at is not None and delivery.attempts:
        last = delivery.attempts[-1]
        kind = "put_off" if last.outcome in _PUT_OFF else "will_retry"
        at = last.finished_at or last.started_at
        yield Happening(at, kind, delivery, then=delivery.next_retry_at)


def _tries(delivery: DeliveryView) -> Iterator[Happening]:
    """A try each; what was put off over and over for one reason is told once."""
    run: list[AttemptView] = []
    for attempt in delivery.attempts:
        if run and not (
            attempt.outcome in _PUT_OFF
            and run[-1].outcome == attempt.outcome
            and run[-1].error_code == attempt.error_code
        ):
            yield _tried(delivery, run)
            run = []
        run.append(attempt)
    if run:
        yield _tried(delivery, run)


def _tried(delivery: DeliveryView, run: Sequence[AttemptView]) -> Happening:
    last = run[-1]
    return Happening(
        run[0].started_at,
        "tries" if len(run) > 1 else "try",
        delivery,
        tuple(run),
        words={"n": len(run), "number": last.attempt_no, "worker": last.worker},
    )


def _planned(delivery: DeliveryView) -> Iterator[Planned]:
    """What has ended brings nothing more: its steps are there, or never come."""
    if delivery.status in NOT_FINAL:
        for entry in delivery.then or ():
            yield _step(Step.THEN, entry, delivery)
        for entry in delivery.fallback or ():
            yield _step(Step.FALLBACK, entry, delivery)


def _step(step: Step, entry: Mapping[str, Any], delivery: DeliveryView) -> Planned:
    return Planned(
        step, str(entry.get("channel", "?")), entry.get("recipient") or delivery.recipient
    )
