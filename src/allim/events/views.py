"""What is shown of events."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field

Item = TypeVar("Item")


class EventStatus(StrEnum):
    """Where an event is."""

    PENDING = "PENDING"
    SENT = "SENT"
    FAILED = "FAILED"
    DEAD = "DEAD"
    DISCARDED = "DISCARDED"


class EventSummary(BaseModel):
    """An event without its payload."""

    id: UUID
    topic: str
    key: str | None
    status: EventStatus
    waiting: bool = Field(description="Waits for its retry, or behind one of its key that does")
    retry_count: int
    headers: dict[str, str]
    content_type: str | None
    encrypted: bool
    size: int = Field(description="Bytes of the payload as it is stored")
    created_at: datetime
    updated_at: datetime
    last_attempt_time: datetime | None
    next_retry_at: datetime | None
    error_message: str | None


class EventView(EventSummary):
    """An event; the payload of an encrypted one is not shown."""

    payload: Any = Field(None, description="Where it is JSON")
    payload_base64: str | None = Field(None, description="Where it is not")


class BlockedKey(BaseModel):
    """A key whose messages wait, because the first of them failed."""

    topic: str
    key: str
    event_id: UUID = Field(description="The message that failed")
    status: EventStatus
    retry_count: int
    error_message: str | None
    created_at: datetime
    next_retry_at: datetime | None = Field(description="null: until it is replayed or discarded")
    waiting: int = Field(description="How many wait behind it; counted up to 10,000")


class EventPage(BaseModel, Generic[Item]):
    """One page of a listing; `next` is the cursor of the one after it."""

    items: list[Item]
    next: str | None = None


class Published(BaseModel):
    """What was published."""

    ids: list[UUID] = Field(description="The events' ids, in the order of the request")
    stored: int = Field(description="How many were new: ids that were there are passed over")
