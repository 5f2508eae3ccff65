"""Which buttons make sense: the same rules as the services', told beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from allim.hub.operations import DISCARDABLE, RETRYABLE
from allim.hub.status import NOT_FINAL, DeliveryStatus
from allim.hub.views import DeliveryView, NotificationView

_CANCELABLE = frozenset({DeliveryStatus.PENDING, DeliveryStatus.FAILED})


@dataclass(frozen=True, slots=True)
class Possible:
    """What can be done to a notification now; the service has the last word."""

    cancel: bool
    retry: frozenset[int]
    discard: frozenset[int]
    retry_all: frozenset[int]
    """Of each branch only its last word: what a fallback has replaced stays replaced."""

    @classmethod
    def with_(cls, notification: NotificationView) -> Possible:
        """What each delivery's state allows, and that of those beneath it."""
        deliveries = notification.deliveries
        retry = frozenset(d.id for d in deliveries if _may_retry(d, notification))
        return cls(
            cancel=any(d.status in _CANCELABLE for d in deliveries),
            retry=retry,
            discard=frozenset(
                d.id for d in deliveries if d.status in DISCARDABLE and d.superseded_by is None
            ),
            retry_all=frozenset(
                d.id for d in deliveries if d.id in retry and d.superseded_by is None
            ),
        )


def _may_retry(delivery: DeliveryView, notification: NotificationView) -> bool:
    return (
        delivery.status in RETRYABLE
        and notification.canceled_at is None
        and (delivery.expires_at is None or delivery.expires_at > datetime.now(UTC))
        and (delivery.superseded_by is None or delivery.superseded_by > delivery.id)
        and not any(
            below.status in NOT_FINAL or below.status is DeliveryStatus.SUCCESS
            for below in beneath(delivery.id, notification.deliveries)
        )
    )


def beneath(identity: int, deliveries: Sequence[DeliveryView]) -> Iterable[DeliveryView]:
    """Every delivery that came of this one, and of those."""
    for delivery in deliveries:
        if delivery.parent_id == identity:
            yield delivery
            yield from beneath(delivery.id, deliveries)
