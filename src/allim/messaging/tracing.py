"""Why did my text not come? Everything done for a recipient or a message, in time order."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from pydantic import BaseModel, Field

from allim.channels.korean_sms import BadNumber, normalise_number
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.hub.status import DeliveryStatus, Step
from allim.hub.views import Moment
from allim.messaging.suppression import SuppressionView

SQL = Statements.load("allim.messaging", "tracing.sql")


class TracedAttempt(BaseModel):
    """One try."""

    attempt_no: int
    started_at: Moment
    finished_at: Moment | None
    outcome: str | None
    http_status: int | None
    error_code: str | None
    error: str | None
    group_id: str | None = Field(description="Solapi's group, to be looked up in its console")
    receipt_status: str | None = Field(description="What the provider reported of this try")


class TracedDelivery(BaseModel):
    """One delivery with its tries."""

    id: int
    notification_id: UUID
    tenant_id: int | None
    source: str
    type: str
    job_id: str | None
    message_mode: str | None
    straight_to_sms: str | None = Field(description="Why `both` was an SMS at once")
    reservation_id: str | None
    channel: str
    step: Step
    recipient: str | None
    status: DeliveryStatus
    error_code: str | None = Field(description="Why it stands so, as a word")
    last_error: str | None
    group_id: str | None
    message_id: str | None
    receipt_status: str | None
    receipt_at: Moment | None
    superseded_by: int | None = Field(description="The fallback that took its place")
    next_retry_at: Moment | None
    created_at: Moment
    sent_at: Moment | None
    canceled_at: Moment | None
    charged: int = Field(description="KRW that its tenant paid, refunds taken off")
    attempts: list[TracedAttempt]


class RefusedJob(BaseModel):
    """A job of the queue that never became a notification."""

    message_id: str = Field(description="Of the queue's message, also in its dead letters")
    job_id: str | None
    tenant_id: int | None
    reason: str
    receives: int
    created_at: Moment
    updated_at: Moment


class TraceView(BaseModel):
    """All of it, oldest first."""

    recipient: str
    deliveries: list[TracedDelivery]
    refused_jobs: list[RefusedJob]
    suppressions: list[SuppressionView] = Field(description="Opt-outs that hold now")


class Tracer:
    """Looks up what was done for a recipient."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def trace(
        self, recipient: str, *, tenant: int | None = None, limit: int = 100
    ) -> TraceView:
        """The newest `limit` deliveries to a phone number in any spelling, or to any address;
        or those that the provider knows by this id of a message or group."""
        spelt = spellings(recipient)
        asked = {
            "recipients": spelt,
            "word": recipient.strip(),
            "tenant": tenant,
            "limit": limit,
        }
        deliveries = await self._database.fetch(SQL["trace"], asked)
        refused = await self._database.fetch(SQL["refused"], asked)
        opted_out = await self._database.fetch(SQL["opted_out"], asked)
        return TraceView(
            recipient=spelt[0],
            deliveries=[TracedDelivery.model_validate(row[0]) for row in reversed(deliveries)],
            refused_jobs=[RefusedJob.model_validate(row[0]) for row in reversed(refused)],
            suppressions=[SuppressionView.model_validate(row[0]) for row in opted_out],
        )


def spellings(recipient: str) -> Sequence[str]:
    """A number as it may have been stored, its plain digits first; another address as it is."""
    plain = recipient.strip()
    try:
        digits = normalise_number(plain)
    except BadNumber:
        return [plain]
    head, middle, tail = digits[:3], digits[3:-4], digits[-4:]
    national = f"{head}-{middle}-{tail}"
    abroad = f"{head[1:]}-{middle}-{tail}"
    written = [
        digits,
        national,
        national.replace("-", " "),
        national.replace("-", "."),
        f"({head}) {middle}-{tail}",
        f"({head}){middle}-{tail}",
        f"+82{digits[1:]}",
        f"+82 {abroad}",
        f"+82-{abroad}",
        f"82{digits[1:]}",
        plain,
    ]
    return list(dict.fromkeys(written))
