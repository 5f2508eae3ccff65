"""The states of a delivery, and the status of a notification that follows from them."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum


class DeliveryStatus(StrEnum):
    """Where a delivery stands. FAILED waits to be retried; DEAD is the dead letter."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    ACCEPTED = "ACCEPTED"
    FAILED = "FAILED"
    DEAD = "DEAD"
    SKIPPED = "SKIPPED"
    HELD = "HELD"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


class NotificationStatus(StrEnum):
    """Where a notification stands; never stored, always computed from its deliveries."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    PARTIALLY_FAILED = "PARTIALLY_FAILED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


class Step(StrEnum):
    """How a delivery came to be: asked for, or following another's success or failure."""

    ROOT = "root"
    THEN = "then"
    FALLBACK = "fallback"


NOT_FINAL = frozenset(
    {
        DeliveryStatus.PENDING,
        DeliveryStatus.PROCESSING,
        DeliveryStatus.FAILED,
        DeliveryStatus.ACCEPTED,
        DeliveryStatus.HELD,
    }
)
"""A delivery in one of these may still change by itself or by an operator's word."""


def notification_status(deliveries: Collection[tuple[DeliveryStatus, int]]) -> NotificationStatus:
    """The status that follows from unsuperseded deliveries, given as (status, attempts).

    The first rule that fits decides. The SQL function of the same name is what
    answers requests; this one is its specification, and a test holds the two together.
    """
    states = {status for status, _ in deliveries}
    if states == {DeliveryStatus.CANCELED}:
        return NotificationStatus.CANCELED
    if states == {DeliveryStatus.EXPIRED}:
        return NotificationStatus.EXPIRED
    if states <= {DeliveryStatus.PENDING} and not any(attempts for _, attempts in deliveries):
        return NotificationStatus.PENDING
    if states & NOT_FINAL:
        return NotificationStatus.PROCESSING
    if states == {DeliveryStatus.SKIPPED}:
        return NotificationStatus.SKIPPED
    if DeliveryStatus.SUCCESS not in states:
        return NotificationStatus.FAILED
    if states & {DeliveryStatus.DEAD, DeliveryStatus.CANCELED, DeliveryStatus.EXPIRED}:
        return NotificationStatus.PARTIALLY_FAILED
    return NotificationStatus.COMPLETED
