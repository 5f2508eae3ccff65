"""Domain events: what has happened, where it is to be told, and as what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, PrivateAttr

from allim.base.ids import uuid7
from allim.events.errors import InvalidEvent
from allim.events.serializers import JsonSerializer, Serializer

AGGREGATE_TYPE = "aggregateType"
AGGREGATE_ID = "aggregateId"
EVENT_TYPE = "eventType"

_OURS = frozenset(
    {
        "aggregate_id",
        "aggregate_type",
        "content_type",
        "encrypted",
        "event_id",
        "event_type",
        "headers",
        "identified_by",
        "key",
        "ordered",
        "serialize",
        "serializer",
        "topic",
    }
)
_CLASS_VARIABLES = frozenset({"encrypted", "ordered", "serializer", "topic"})
_IDENTITY = "id"
_SUFFIX = "_id"


class DomainEvent(BaseModel):
    """Something that has happened. Subclass it, name the topic, and declare what it tells.

        class UserCreated(DomainEvent):
            topic = "user-events"
            user_id: UUID
            username: str

    Messages of one `key` leave in order. The key is the aggregate's id: the field `id`, or
    the only field whose name ends in ``_id``. Where there are several, or none, say which by
    overriding `aggregate_id` (or `key`, if they are not the same), or say that the event
    needs no order with ``ordered = False``.

    Everything here may be overridden, class variables by plain assignments. The payload is the
    model's JSON, with no envelope around it; what is told about the event stands in the headers.
    """

    model_config = ConfigDict(frozen=True)

    topic: ClassVar[str] = ""
    ordered: ClassVar[bool] = True
    """Whether its messages must leave in the order of their key. False allows it to have none."""
    serializer: ClassVar[Serializer] = JsonSerializer()
    encrypted: ClassVar[bool | None] = None
    """Whether the payload is encrypted at rest; None leaves it to `EVENTS_ENCRYPTED_TOPICS`."""

    _event_id: UUID = PrivateAttr(default_factory=uuid7)

    @classmethod
    def __pydantic_init_subclass__(cls, **_more: Any) -> None:
        """Refuse fields that would hide what an event is told by."""
        hidden = sorted(_OURS & set(cls.model_fields))
        if plain := [name for name in hidden if name in _CLASS_VARIABLES]:
            raise TypeError(
                f"{cls.__qualname__}: {plain[0]} is told of the class and not of each event: write"
                f" `{plain[0]} = …` without a type"
            )
        if hidden:
            raise TypeError(
                f"{cls.__qualname__}: a field cannot be called {' or '.join(hidden)}, which is what"
                " DomainEvent tells of every event: give it another name, or make it a property"
            )

    @property
    def event_id(self) -> UUID:
        """The event's id, by which consumers know a repeat: made once for each instance.

        An instance that is published again is stored once. Override it where an id comes from
        elsewhere.
        """
        return self._event_id

    def identified_by(self, event_id: UUID) -> Self:
        """The same event under an id of your own, say of the request that led to it."""
        same = self.model_copy()
        same._event_id = event_id
        return same

    @property
    def key(self) -> str | None:
        """The ordering key, and the key that the broker is told."""
        return self.aggregate_id

    @property
    def aggregate_id(self) -> str | None:
        """The id of what the event happened to."""
        name = _identifying_field(type(self))
        value = None if name is None else getattr(self, name)
        return None if value is None else str(value)

    @property
    def aggregate_type(self) -> str | None:
        """What kind of thing that is: ``user``, where its field is `user_id`."""
        name = _identifying_field(type(self))
        return name.removesuffix(_SUFFIX) if name not in (None, _IDENTITY) and name else None

    @property
    def event_type(self) -> str:
        """What happened: the name of the class."""
        return type(self).__name__

    @property
    def content_type(self) -> str:
        """The media type of the payload."""
        return self.serializer.content_type

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the message. The event id and the trace come to them by themselves."""
        headers = {EVENT_TYPE: self.event_type}
        if (aggregate_type := self.aggregate_type) is not None:
            headers[AGGREGATE_TYPE] = aggregate_type
        if (aggregate_id := self.aggregate_id) is not None:
            headers[AGGREGATE_ID] = aggregate_id
        return headers

    def serialize(self) -> bytes:
        """The payload."""
        return self.serializer.serialize(self)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's; a copy that tells something else is another event, with its own id."""
        copy = super().model_copy(update=update, deep=deep)
        if update:
            copy._event_id = uuid7()
        return copy


@dataclass(frozen=True, slots=True, kw_only=True)
class RawEvent:
    """A message that is bytes already. A `key` of None has no order."""

    topic: str
    key: str | None
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/octet-stream"
    event_id: UUID = field(default_factory=uuid7)
    encrypted: bool | None = None


Event = DomainEvent | RawEvent


def missing_key(event: DomainEvent) -> InvalidEvent:
    """Why an event has no key, and what to do about it."""
    name = type(event).__name__
    named = _identifying_field(type(event))
    candidates = _candidates(type(event))
    if named is not None:
        reason = f"its {named} is None"
    elif candidates:
        reason = f"any of {', '.join(candidates)} could be it"
    else:
        reason = "no field of it ends in _id"
    return InvalidEvent(
        f"{name} has no key: {reason}. Override `aggregate_id` (or `key`) to say by what its"
        " messages are ordered, or set `ordered = False`"
    )


_identifying: dict[type[DomainEvent], str | None] = {}


def _identifying_field(kind: type[DomainEvent]) -> str | None:
    try:
        return _identifying[kind]
    except KeyError:
        candidates = _candidates(kind)
        found = candidates[0] if len(candidates) == 1 or _IDENTITY in candidates[:1] else None
        _identifying[kind] = found
        return found


def _candidates(kind: type[DomainEvent]) -> list[str]:
    names = [name for name in kind.model_fields if name.endswith(_SUFFIX)]
    return [_IDENTITY, *names] if _IDENTITY in kind.model_fields else names
