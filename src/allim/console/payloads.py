"""Payloads as far as they can be read: JSON and text, bounded; anything else is left alone."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from pydantic_core import to_json

from allim.events.views import EventView

SHOWN = 20_000
"""Characters."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What is shown of a payload; no text where it is none, or encrypted."""

    text: str | None
    cut: bool = False


def payload_of(event: EventView) -> Payload:
    """The payload of an event, to be read by people."""
    if event.encrypted:
        return Payload(None)
    if event.payload_base64 is None:
        text = to_json(event.payload, indent=2).decode("utf-8", "replace")
    else:
        try:
            text = base64.b64decode(event.payload_base64).decode()
        except UnicodeDecodeError:
            return Payload(None)
        if any(not (c.isprintable() or c in "\r\n\t") for c in text[:SHOWN]):
            return Payload(None)
    return Payload(text[:SHOWN], len(text) > SHOWN)
