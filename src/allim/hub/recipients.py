"""A delivery that names many recipients: what it may not be, and how it is written out."""

from __future__ import annotations

from collections.abc import Sequence

from allim.base.errors import FieldProblem
from allim.hub.model import DeliveryRequest

WRITTEN_OUT_LIMIT = 16 * 1024 * 1024
"""Bytes that one delivery may have once it is written out for all its recipients."""


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
        words = f"make more than {WRITTEN_OUT_LIMIT} bytes of it"
        return FieldProblem("recipients", "too_large", words)
    return None


def for_one(delivery: DeliveryRequest, recipient: str) -> DeliveryRequest:
    """The same delivery for one of its recipients."""
    return delivery.model_copy(update={"recipient": recipient, "recipients": None})
