"""A delivery that names many recipients: what it may not be, and how it is written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from allim.base.errors import FieldProblem
from allim.hub.model import DeliveryRequest

WRITTEN_OUT_LIMIT = 16 * 1024 * 1024
"""Bytes that a notification's lists may have once they are written out for all recipients."""

PROBLEMS_OF_A_LIST = 100
"""After so many wrong recipients of a list no more of them are looked at."""


def unfit_for_many(delivery: DeliveryRequest, recipients: Sequence[str]) -> FieldProblem | None:
    """Why a delivery cannot be written out for its recipients, with the place in it; or None."""
    if delivery.recipient is not None:
        return FieldProblem("recipients", "recipient_twice", "cannot stand beside `recipient`")
    if (place := _row_key_in(delivery)) is not None:
        words = "is for one delivery, and these are several"
        return FieldProblem(place, "row_key_shared", words)
    if len(set(recipients)) < len(recipients):
        at = next(at for at, each in enumerate(recipients) if each in recipients[:at])
        words = "stands in the list before"
        return FieldProblem(f"recipients/{at}", "recipient_repeated", words)
    return None


def written_out(delivery: DeliveryRequest, recipients: Sequence[str]) -> int:
    """Bytes of a delivery that is written out for its recipients."""
    try:
        return len(delivery.model_dump_json(exclude={"recipients"})) * len(recipients)
    except ValueError:
        return 0  # Told by whoever serialises it, with its place.


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


def _row_key_in(delivery: DeliveryRequest) -> str | None:
    """Where in a delivery and its steps a row key stands first."""
    if delivery.row_key is not None:
        return "row_key"
    for name, steps in (("then", delivery.then), ("fallback", delivery.fallback)):
        for at, step in enumerate(steps):
            if (place := _row_key_in(step)) is not None:
                return f"{name}/{at}/{place}"
    return None
