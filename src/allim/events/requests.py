"""Events as they come over HTTP."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from allim.base.errors import FieldProblem, InvalidRequest
from allim.base.ids import uuid7
from allim.base.telemetry import TraceContext
from allim.base.validation import invalid_body
from allim.events.encryption import Encryption
from allim.events.errors import InvalidEvent, MessageSerializationFailed, PayloadTooLarge
from allim.events.event import RawEvent
from allim.events.message import TRACEPARENT, Message, prepare

EVENTS_LIMIT = 500
"""Events of one request."""
BODY_LIMIT = 4 * 1024 * 1024
"""Bytes of a request."""

NO_NUL = r"^[^\x00]*$"
_JSON = "application/json"
_BYTES = "application/octet-stream"

Text = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)]


class EventRequest(BaseModel):
    """An event to be published."""

    model_config = ConfigDict(extra="forbid")

    topic: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    key: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=NO_NUL)] | None = (
        Field(description="Events of one key leave in order. null: this one needs none")
    )
    payload: Any = Field(
        None, description="Any JSON; this or payload_base64. Written anew, without spaces"
    )
    payload_base64: str | None = Field(None, description="Bytes; this or payload")
    headers: dict[Text, Annotated[str, StringConstraints(pattern=NO_NUL)]] = Field(
        default_factory=dict, max_length=100
    )
    content_type: Text | None = Field(None, description=f"{_JSON}, or {_BYTES} for payload_base64")
    event_id: UUID | None = Field(
        None, description="By which consumers know a repeat; an id that is there is passed over"
    )

    @model_validator(mode="after")
    def _one_payload(self) -> EventRequest:
        given = self.model_fields_set & {"payload", "payload_base64"}
        if len(given) != 1:
            raise PydanticCustomError("payload", "needs either payload or payload_base64")
        return self

    def event(self, traceparent: str | None) -> RawEvent:
        """As an event. Raises ValueError (base64) and InvalidEvent (JSON) for what is neither."""
        if self.payload_base64 is None:
            payload, content_type = _json(self.payload), _JSON
        else:
            payload, content_type = base64.b64decode(self.payload_base64, validate=True), _BYTES
        headers = dict(self.headers)
        if traceparent is not None:
            headers.setdefault(TRACEPARENT, traceparent)
        return RawEvent(
            topic=self.topic,
            key=self.key,
            payload=payload,
            headers=headers,
            content_type=self.content_type or content_type,
            event_id=self.event_id or uuid7(),
        )


_ONE = TypeAdapter(EventRequest)
_MANY = TypeAdapter(Annotated[list[EventRequest], Field(min_length=1, max_length=EVENTS_LIMIT)])


def read_events(body: bytes, encryption: Encryption, traceparent: str | None) -> Sequence[Message]:
    """The events of a body (one JSON object, or an array of them), ready to be stored.

    Raises RequestError (what is not JSON), InvalidRequest with every problem, and
    EncryptionKeyMissing.
    """
    several = body.lstrip()[:1] == b"["
    try:
        requests = _MANY.validate_json(body) if several else [_ONE.validate_json(body)]
    except ValidationError as error:
        raise invalid_body(error) from None
    traceparent = traceparent if TraceContext.parse(traceparent) else None
    messages: list[Message] = []
    problems: list[FieldProblem] = []
    for at, request in enumerate(requests):
        place = f"/{at}" if several else ""
        try:
            messages += prepare([request.event(traceparent)], encryption)
        except (binascii.Error, ValueError):
            problems.append(
                FieldProblem(f"{place}/payload_base64", "base64", "is not valid base64")
            )
        except PayloadTooLarge as error:
            problems.append(FieldProblem(f"{place}/payload", "payload_too_large", str(error)))
        except MessageSerializationFailed as error:
            problems.append(FieldProblem(place, "invalid_event", str(error)))
    if problems:
        raise InvalidRequest(problems)
    return messages


def _json(payload: Any) -> bytes:
    """As JSON again: what was read may hold numbers that it cannot say."""
    try:
        return json.dumps(
            payload, allow_nan=False, ensure_ascii=False, separators=(",", ":")
        ).encode()
    except ValueError:
        raise InvalidEvent("the payload has a number that JSON cannot hold") from None


def body_schema() -> dict[str, Any]:
    """How OpenAPI describes the body."""
    one = EventRequest.model_json_schema()
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": EVENTS_LIMIT}
    return {"anyOf": [one, many]}
