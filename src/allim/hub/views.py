"""What the API shows: notifications, deliveries, attempts, and pages of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from allim.hub.model import PRIORITIES, Priority
from allim.hub.status import DeliveryStatus, NotificationStatus, Step

Moment = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
_Priority = Annotated[
    Priority, BeforeValidator(lambda rank: PRIORITIES[rank] if isinstance(rank, int) else rank)
]


class AttemptView(BaseModel):
    """One try to send a delivery."""

    attempt_no: int
    started_at: Moment
    finished_at: Moment | None
    outcome: str | None = Field(description="Null while it is under way")
    http_status: int | None
    error_code: str | None
    error: str | None
    provider_id: str | None
    response: str | None = Field(description="What the other side answered, cut")
    worker: str


class DeliveryLine(BaseModel):
    """One delivery in short."""

    id: int
    channel: str
    recipient: str | None = Field(
        description="For who may not send: of a URL its host only, and a hash to tell it by"
    )
    status: DeliveryStatus


class DeliveryView(DeliveryLine):
    """One delivery with everything that happened to it."""

    notification_id: UUID
    parent_id: int | None
    step: Step
    superseded_by: int | None = Field(description="The delivery that took its place")
    tenant_id: int | None
    template_code: str | None
    payload: dict[str, Any] = Field(
        description="For who may not send: without the values of `headers` and `subscription`"
    )
    row_key: str | None
    priority: _Priority
    attempt_count: int
    retry_count: int
    rescue_count: int
    max_attempts: int
    next_retry_at: Moment | None
    expires_at: Moment | None
    last_error: str | None
    error_code: str | None
    provider_id: str | None
    provider_message_id: str | None
    receipt_status: str | None
    receipt_at: Moment | None
    sent_at: Moment | None
    guard: dict[str, Any] | None
    then: list[dict[str, Any]] | None = Field(description="What follows its success")
    fallback: list[dict[str, Any]] | None = Field(description="What follows its failure")
    created_at: Moment
    updated_at: Moment
    attempts: list[AttemptView]


class _Notification(BaseModel):
    id: UUID
    status: NotificationStatus
    tenant_id: int | None
    source: str
    type: str
    title: str | None
    message: str | None
    data: dict[str, Any]
    priority: _Priority
    idempotency_key: str | None
    scheduled_at: Moment | None
    expires_at: Moment | None
    canceled_at: Moment | None
    traceparent: str | None
    created_at: Moment


class NotificationSummary(_Notification):
    """A notification as listings show it."""

    deliveries: list[DeliveryLine]


class NotificationView(_Notification):
    """A notification with its deliveries and their attempts."""

    deliveries: list[DeliveryView]


Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """Part of a listing; `next` is the cursor of the next part, null at the end.

    A page may be short, even empty, before the end: what no index can find is looked for
    in steps.
    """

    items: list[Item]
    next: str | None

    @classmethod
    def of(cls, found: Sequence[Item], limit: int, cursor_of: Callable[[Item], str]) -> Page[Item]:
        """The first `limit` of what was found: one more was asked for, to see whether more follow.

        `cursor_of` tells the cursor of what comes after an item.
        """
        items = list(found[:limit])
        return cls(items=items, next=cursor_of(items[-1]) if len(found) > limit else None)

    def each(self, change: Callable[[Item], Item]) -> Page[Item]:
        """The same page of changed items."""
        return self.model_copy(update={"items": list(map(change, self.items))})


class CreatedDeliveryView(BaseModel):
    """A delivery as it was created."""

    id: int
    channel: str
    recipient: str | None
    status: DeliveryStatus


class CreatedView(BaseModel):
    """A notification as it was created."""

    id: UUID
    status: NotificationStatus
    created_at: Moment
    deliveries: list[CreatedDeliveryView]


class CanceledView(BaseModel):
    """What a cancellation left: how many deliveries it cancelled, and where all of them stand."""

    id: UUID
    status: NotificationStatus
    canceled: int = Field(description="Deliveries cancelled by this request")
    deliveries: list[DeliveryLine]


class EndpointView(BaseModel):
    """A webhook target that has secrets of its own, or that is disabled."""

    id: int
    tenant_id: int | None
    channel: str
    url: str = Field(description="For who may only read: its host only, and a hash to tell it by")
    secrets: int = Field(description="How many secrets sign; two while one is being replaced")
    disabled_at: Moment | None
    disabled_reason: str | None
    created_at: Moment
    updated_at: Moment


class EndpointSecretView(EndpointView):
    """An endpoint with its new secret, which is shown this once."""

    secret: str


class BulkItemView(BaseModel):
    """What became of one notification of a bulk request."""

    status: int = Field(description="The HTTP status that it would have had by itself")
    replayed: bool | None = None
    notification: CreatedView | None = None
    problem: dict[str, Any] | None = None


class BulkView(BaseModel):
    """What became of each notification, in the order of the request."""

    results: list[BulkItemView]


class ReplayGroup(BaseModel):
    """Deliveries that share channel, state and error."""

    channel: str
    status: DeliveryStatus
    error_code: str | None
    count: int


class ReplayCountView(BaseModel):
    """What a replay would send."""

    dry_run: bool = True
    total: int
    groups: list[ReplayGroup]


class ReplayView(BaseModel):
    """A replay job: what it means, and how far it is."""

    id: int
    status: str = Field(description="RUNNING, PAUSED, COMPLETED or CANCELED")
    filter: dict[str, Any]
    tenant_id: int | None
    rate_per_second: float | None
    total: int = Field(description="Deliveries that the filter meant when it was made")
    replayed: int
    skipped: int = Field(description="Looked at, but not to be sent again any more")
    reason: str
    requested_by: str
    created_at: Moment
    updated_at: Moment
    finished_at: Moment | None
