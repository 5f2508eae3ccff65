"""The headers that every publisher sends with a message."""

from __future__ import annotations

from collections.abc import Mapping

from allim.events.message import EVENT_ID
from allim.events.relaying.message import OutboxMessage

CONTENT_TYPE = "content-type"


def headers_of(message: OutboxMessage) -> Mapping[str, str]:
    """What the producer said, the event's id by which consumers drop repeats, and the type."""
    headers = {**message.headers, EVENT_ID: message.id}
    if message.content_type is not None:
        headers.setdefault(CONTENT_TYPE, message.content_type)
    return headers
