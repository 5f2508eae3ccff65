"""What a caller may ask for: the fields of a notification and of its deliveries."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

DELIVERIES_PER_NOTIFICATION = 100
DELIVERIES_PER_BRANCH = 10
"""A root entry with everything beneath it."""
RECIPIENTS_PER_NOTIFICATION = 1000
"""Deliveries of a notification, once its lists of recipients are written out."""
DELIVERIES_PER_BULK = 10_000
"""The same of all notifications of one bulk request."""
MAX_BIGINT = 2**63 - 1

# PostgreSQL's text cannot hold NUL, so no text of ours may.
_NO_NUL = r"^[^\x00]*$"


class Priority(StrEnum):
    """Which deliveries of a channel go first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """As stored: 0 goes first."""
        return _RANKS[self]


_RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
PRIORITIES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
"""By rank."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("datetime_range", "is outside the calendar") from None


Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_NO_NUL)]
"""A short text that is never empty: a source, a type, a code."""
Title = Annotated[str, StringConstraints(max_length=1000, pattern=_NO_NUL)]
Text = Annotated[str, StringConstraints(max_length=100_000, pattern=_NO_NUL)]
Recipient = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=_NO_NUL)]
RowKey = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_NO_NUL)]
ChannelName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=32, pattern=r"^[A-Za-z][A-Za-z0-9_]*$"),
    AfterValidator(str.upper),
]
Language = Annotated[
    str,
    StringConstraints(max_length=35, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"),
    AfterValidator(str.lower),
]
"""A language tag (BCP 47), in small letters."""
TenantId = Annotated[int, Field(ge=1, le=MAX_BIGINT)]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class _Request(BaseModel):
    # Strict: a number is not a text and a text not a number. Unknown fields are refused,
    # since a misspelt one would otherwise be lost in silence.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DeliveryRequest(_Request):
    """One delivery: a channel, to whom, and what follows from its success or failure."""

    channel: ChannelName = Field(description="Name of a channel, in any case", examples=["EMAIL"])
    recipient: Recipient | None = Field(
        default=None, description="Address as the channel wants it; its default where left out"
    )
    recipients: list[Recipient] | None = Field(
        default=None,
        min_length=1,
        max_length=RECIPIENTS_PER_NOTIFICATION,
        description="Instead of `recipient`: one delivery for each, all alike. Not for then and"
        " fallback, nor beside row_key",
    )
    template_code: Word | None = Field(
        default=None, description="A stored template (GET /templates), or the provider's own"
    )
    template_version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None, description="One version of the stored template; the newest if left out"
    )
    language: Language | None = Field(
        default=None, description="Of the stored template; the one without a language stands in"
    )
    title: Title | None = Field(default=None, description="Instead of the notification's")
    message: Text | None = Field(default=None, description="Instead of the notification's")
    payload: dict[str, Any] | None = Field(
        default=None, description="What only this channel knows (html, blocks, …)"
    )
    row_key: RowKey | None = Field(
        default=None, description="Unique per tenant and channel; a second one is refused"
    )
    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    guard: dict[str, Any] | None = Field(
        default=None, description="What is checked just before the send"
    )
    then: list[DeliveryRequest] = Field(
        default_factory=list, max_length=DELIVERIES_PER_BRANCH, description="All run on success"
    )
    fallback: list[DeliveryRequest] = Field(
        default_factory=list,
        max_length=DELIVERIES_PER_BRANCH,
        description="The next one runs when the one before it is dead",
    )


class NotificationRequest(_Request):
    """One notification and its deliveries."""

    source: Word = Field(description="The system that tells", examples=["payment-service"])
    type: Word = Field(description="What happened", examples=["PAYMENT_FAILED"])
    title: Title | None = None
    message: Text | None = None
    data: dict[str, Any] = Field(default_factory=dict, description="Whatever describes the event")
    priority: Priority = Priority.NORMAL
    scheduled_at: Moment | None = Field(default=None, description="Not before this moment")
    expires_at: Moment | None = Field(default=None, description="Not after this moment")
    tenant_id: TenantId | None = None
    deliveries: list[DeliveryRequest] = Field(min_length=1, max_length=DELIVERIES_PER_NOTIFICATION)

    @field_validator("expires_at")
    @classmethod
    def _expires_after_it_begins(
        cls, expires_at: datetime | None, earlier: ValidationInfo
    ) -> datetime | None:
        begins = earlier.data.get("scheduled_at")
        if begins and expires_at and expires_at <= begins:
            raise PydanticCustomError("expires_too_early", "must be after scheduled_at")
        return expires_at


NOTIFICATIONS_PER_BULK = 1000


class KeyedRequest(NotificationRequest):
    """One notification of many; what stands in a header elsewhere stands beside its fields."""

    idempotency_key: str | None = None


class BulkRequest(BaseModel):
    """Many notifications at once; each is judged by itself."""

    model_config = ConfigDict(extra="forbid", strict=True)

    notifications: list[Any] = Field(
        min_length=1,
        max_length=NOTIFICATIONS_PER_BULK,
        description="Each as for POST /notifications, and optionally with its idempotency_key",
    )


class WholeBulkRequest(BaseModel):
    """A bulk request in which every notification is well formed."""

    model_config = BulkRequest.model_config

    notifications: list[KeyedRequest] = Field(min_length=1, max_length=NOTIFICATIONS_PER_BULK)
