"""Why did this not arrive? One plain sentence for each thing that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from allim.console.languages import Catalogue
from allim.hub.redaction import shown
from allim.hub.status import DeliveryStatus
from allim.hub.views import DeliveryView, NotificationView
from allim.relay.outcomes import OutcomeKind

_LONGEST = 160
_NOBODY_CALLED = frozenset({"mock", "not_configured"})
_BAD = frozenset({DeliveryStatus.DEAD, DeliveryStatus.HELD, DeliveryStatus.EXPIRED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence about one delivery; `at` is the time that it speaks of, to be shown behind it.

    `level` is how far down a chain of fallbacks it stands.
    """

    delivery: DeliveryView
    text: str
    mood: str
    level: int
    at: datetime | None = None


def verdicts(notification: NotificationView, t: Catalogue) -> Sequence[Verdict]:
    """The sentences, each delivery followed by what came of it."""
    told: list[Verdict] = []

    def tell(parent: int | None, level: int) -> None:
        for delivery in notification.deliveries:
            if delivery.parent_id == parent:
                told.append(_verdict(delivery, notification, level, t))
                tell(delivery.id, level + 1)

    tell(None, 0)
    return told


def explain(code: str | None, error: str | None, t: Catalogue) -> str:
    """Why, in words: what is known of the code, then what the other side said."""
    known = t.known(f"notifications.code.{code}", "") if code else ""
    said = (error or "").strip()
    if len(said) > _LONGEST:
        said = said[: _LONGEST - 1] + "…"
    why = known or code or ""
    if why.casefold() in said.casefold():
        why = ""
    return ": ".join(part for part in (why, said) if part) or t("notifications.no_reason")


def _verdict(
    delivery: DeliveryView, notification: NotificationView, level: int, t: Catalogue
) -> Verdict:
    key, at = _key(delivery, notification)
    text = t(
        f"notifications.why.{key}",
        channel=delivery.channel,
        to=t("notifications.to", recipient=shown(delivery.recipient)) if delivery.recipient else "",
        n=_tries(delivery),
        reason=explain(delivery.error_code, delivery.last_error, t),
        receipt=delivery.receipt_status or "",
    )
    mood = "good" if key in ("sent", "receipt_delivered") else ""
    if delivery.status in _BAD:
        mood = "bad"
    elif delivery.status is DeliveryStatus.FAILED or key in ("nobody_called", "snoozed"):
        mood = "warn"
    return Verdict(delivery, text, mood, level, at)


def _tries(delivery: DeliveryView) -> int:
    """Tries that reached out; being put off is none."""
    idle = (OutcomeKind.SNOOZED, OutcomeKind.RELEASED, OutcomeKind.SKIPPED)
    return sum(attempt.outcome not in idle for attempt in delivery.attempts)


def _key(delivery: DeliveryView, notification: NotificationView) -> tuple[str, datetime | None]:
    status, code = delivery.status, delivery.error_code
    if status is DeliveryStatus.SUCCESS:
        if code in _NOBODY_CALLED:
            return "nobody_called", delivery.sent_at
        if delivery.receipt_status == "DELIVERED":
            return "receipt_delivered", delivery.receipt_at
        if delivery.receipt_status == "UNKNOWN":
            return "receipt_unknown", delivery.sent_at
        return "sent", delivery.sent_at
    if status is DeliveryStatus.PENDING:
        if delivery.attempts:
            return "snoozed", delivery.next_retry_at
        due = delivery.next_retry_at
        if due is not None and due > datetime.now(UTC):
            return "scheduled", due
        return "waiting", notification.created_at
    if status is DeliveryStatus.CANCELED:
        return ("discarded" if code == "discarded" else "canceled"), delivery.updated_at
    if status is DeliveryStatus.DEAD and delivery.receipt_status == "FAILED":
        return "receipt_failed", delivery.receipt_at
    moments = {
        DeliveryStatus.ACCEPTED: delivery.sent_at,
        DeliveryStatus.FAILED: delivery.next_retry_at,
        DeliveryStatus.EXPIRED: delivery.expires_at,
        DeliveryStatus.PROCESSING: delivery.attempts[-1].started_at if delivery.attempts else None,
    }
    return status.value.lower(), moments.get(status, delivery.updated_at)
