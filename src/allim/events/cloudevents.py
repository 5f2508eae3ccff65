"""CloudEvents 1.0 in Kafka's binary mode: its attributes as `ce_…` headers.

The payload stays what it was, which is why the binary mode was chosen over the structured one:
consumers that know nothing of CloudEvents read the same bytes. Rules: "Kafka Protocol Binding
for CloudEvents", 3.2; the `content-type` header is written by the publisher, as for every event.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar
from uuid import UUID

from allim.events.errors import InvalidEvent
from allim.events.event import DomainEvent


class CloudEvent(DomainEvent):
    """A domain event that also says what CloudEvents wants to know.

    class UserCreated(CloudEvent):
        topic = "user-events"
        event_source = "/shop/users"
        user_id: UUID
    """

    event_source: ClassVar[str] = ""
    """In what context it happened: a URI reference."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of every event, and the attributes of CloudEvents."""
        if not self.event_source:
            raise InvalidEvent(
                f"{type(self).__qualname__} has no event_source, which CloudEvents need"
            )
        attributes = {
            "ce_specversion": "1.0",
            "ce_id": str(self.event_id),
            "ce_source": self.event_source,
            "ce_type": self.event_type,
            "ce_time": _moment_of(self.event_id).isoformat().replace("+00:00", "Z"),
        }
        if (subject := self.aggregate_id) is not None:
            attributes["ce_subject"] = subject
        return {**super().headers, **attributes}


def _moment_of(event_id: UUID) -> datetime:
    """When an event's id was made, where it says so (RFC 9562 version 7); else now."""
    if event_id.version == 7:
        return datetime.fromtimestamp((event_id.int >> 80) / 1000, tz=UTC)
    return datetime.now(tz=UTC)
