"""Events made ready to be stored: serialised, checked, and encrypted where they are to be."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from allim.events.encryption import Encryption
from allim.events.errors import (
    InvalidEvent,
    MessageSerializationFailed,
    OutboxError,
    PayloadTooLarge,
)
from allim.events.event import DomainEvent, Event, RawEvent, missing_key
from allim.events.slots import SLOTS, slot_of

PAYLOAD_LIMIT = 1024 * 1024
"""Bytes of a payload, before encryption."""
KEY_LIMIT = 1024
"""Bytes of a key: an index entry must have room for it."""
HEADER_NAME_LIMIT = 255
HEADERS_LIMIT = 16 * 1024
"""Bytes of all headers together, as JSON."""

TRACEPARENT = "traceparent"
EVENT_ID = "eventId"
"""The header that the relay puts the event's id into; nobody else may."""

_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class Message:
    """A row of the outbox."""

    id: UUID
    topic: str
    key: str | None
    slot: int
    payload: bytes
    headers: str
    """A JSON object of strings."""
    content_type: str
    encryption_key: str | None


def prepare(events: Iterable[Event], encryption: Encryption) -> Sequence[Message]:
    """Every event as it is to be stored, in order.

    Raises MessageSerializationFailed (and its kinds) and EncryptionKeyMissing, naming the
    event. Nothing was stored then: this comes before the first word to the database.
    """
    traceparent = current_traceparent()
    return [_prepared(event, encryption, traceparent) for event in events]


def _prepared(event: Event, encryption: Encryption, traceparent: str | None) -> Message:
    if not isinstance(event, (DomainEvent, RawEvent)):
        raise InvalidEvent(f"{type(event).__qualname__} is neither a DomainEvent nor a RawEvent")
    try:
        return _as_message(event, encryption, traceparent)
    except OutboxError:
        raise
    except Exception as error:  # The event's own code: whatever it raises is told as ours.
        raise MessageSerializationFailed(
            f"{type(event).__qualname__} cannot be serialised: {type(error).__name__}: {error}"
        ) from error


def _as_message(event: Event, encryption: Encryption, traceparent: str | None) -> Message:
    topic, key, event_id = event.topic, event.key, event.event_id
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic):
        raise InvalidEvent(
            f"{_name(event)} has the topic {topic!r}: it must be 1 to 249 of the characters"
            " a-z A-Z 0-9 . _ -"
        )
    if not isinstance(event_id, UUID):
        raise InvalidEvent(f"{_name(event)} has an event_id that is no UUID")
    slot = _slot(event, key)
    payload = event.payload if isinstance(event, RawEvent) else event.serialize()
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise InvalidEvent(
            f"{_name(event)}: serialize() must give bytes, not {type(payload).__name__}"
        )
    payload = bytes(payload)
    if len(payload) > PAYLOAD_LIMIT:
        raise PayloadTooLarge(
            f"{_name(event)}: the payload has {len(payload):,} bytes, the most is"
            f" {PAYLOAD_LIMIT:,}. Store it elsewhere and publish where it is"
        )
    headers = _headers(event, traceparent)
    content_type = event.content_type
    _check_text(event, "the content type", content_type, HEADER_NAME_LIMIT)
    wanted = encryption.covers(topic) if event.encrypted is None else event.encrypted
    encryption_key = None
    if wanted:
        sealed = encryption.keys.seal(payload, event_id=event_id, topic=topic)
        payload, encryption_key = sealed.payload, sealed.key
    return Message(event_id, topic, key, slot, payload, headers, content_type, encryption_key)


def _slot(event: Event, key: Any) -> int:
    if key is None:
        if isinstance(event, DomainEvent) and event.ordered:
            raise missing_key(event)
        return random.randrange(SLOTS)  # noqa: S311
    _check_text(event, "the key", key, KEY_LIMIT)
    return slot_of(key)


def _headers(event: Event, traceparent: str | None) -> str:
    headers: Mapping[str, str] = event.headers
    if traceparent is not None and TRACEPARENT not in headers:
        headers = {**headers, TRACEPARENT: traceparent}
    for name, value in headers.items():
        if not isinstance(value, str):
            raise InvalidEvent(f"{_name(event)}: the header {name!r} is no text")
        _check_text(event, "a header's name", name, HEADER_NAME_LIMIT)
        if "\0" in value:
            raise InvalidEvent(f"{_name(event)}: the header {name!r} has a NUL character")
    if EVENT_ID in headers:
        raise InvalidEvent(
            f"{_name(event)}: the header {EVENT_ID} is set by Allim; override event_id instead"
        )
    encoded = to_json(headers)
    if len(encoded) > HEADERS_LIMIT:
        raise InvalidEvent(
            f"{_name(event)}: its headers have {len(encoded):,} bytes, the most is"
            f" {HEADERS_LIMIT:,}"
        )
    return encoded.decode()


def _check_text(event: Event, what: str, text: Any, limit: int) -> None:
    if type(text) is str and 0 < len(text) <= limit and text.isascii() and "\0" not in text:
        return  # nearly always
    if not isinstance(text, str):
        raise InvalidEvent(f"{_name(event)}: {what} must be text, not {type(text).__name__}")
    if not text:
        raise InvalidEvent(f"{_name(event)}: {what} is empty")
    if "\0" in text:
        raise InvalidEvent(f"{_name(event)}: {what} has a NUL character")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidEvent(f"{_name(event)}: {what} has half of a surrogate pair") from None
    if size > limit:
        raise InvalidEvent(f"{_name(event)}: {what} has {size:,} bytes, the most is {limit:,}")


def _name(event: Event) -> str:
    return type(event).__qualname__


def current_traceparent() -> str | None:
    """The `traceparent` of the span that is current, where this program traces."""
    # Whoever has a span has loaded it.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
