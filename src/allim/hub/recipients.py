"""A delivery that names many recipients: what it may not be, and how it is written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from allim.base.errors import FieldProblem
from allim.hub.model import DeliveryRequest

WRITTEN_OUT_LIMIT = 16 * 1024 * 1024
"""Bytes that one delivery may have once it is written out for all its recipients."""
TOO_LARGE = FieldProblem(
    "recipients", "too_large", f"make more than {WRITTEN_OUT_LIMIT} bytes of it"
)


def unfit_for_many(delivery: DeliveryRequest, recipients: Sequence[str]) -> FieldProblem | None:
    """Why a delivery cannot be written out for its recipients, with the place in it; or None."""
    if delivery.recipient is not None:
        return FieldProblem("recipients", "recipient_twice", "cannot stand beside `recipient`")
    if delivery.row_key is not None:
        words = "is for one delivery, and these are several"
        return FieldProblem("row_key", "row_key_shared", words)
    if len(set(recipients)) < len(recipients):
        at = next(at for at, each in enumerate(recipients) if each in recipients[:at])
        words = "stands in the list before"
        return FieldProblem(f"recipients/{at}", "recipient_repeated", words)
    try:
        size = len(delivery.model_dump_json(exclude={"recipients"}))
    except ValueError:
        return None  # Told by whoever serialises it, with its place.
    if size * len(recipients) > WRITTEN_OUT_LIMIT:
        return TOO_LARGE
    return None


def size_of(value: Any) -> int:
    """About how large something is as JSON: a template may have made much of little."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(key) + size_of(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    return 1


def for_one(delivery: DeliveryRequest, recipient: str) -> DeliveryRequest:
    """The same delivery for one of its recipients."""
    return delivery.model_copy(update={"recipient": recipient, "recipients": None})
