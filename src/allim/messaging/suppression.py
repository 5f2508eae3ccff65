"""The suppression list: who must not be written to, by whom, and about what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, LiteralString

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from allim.base.errors import FieldProblem, InvalidRequest, NotFound
from allim.channels.korean_sms import BadNumber, normalise_number
from allim.channels.mail import parse_mailbox
from allim.channels.unsubscribing import Subscription, list_name
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub import cursors
from allim.hub.model import Recipient, TenantId, Word
from allim.hub.views import Moment, Page

SQL = Statements.load("allim.messaging", "suppression.sql")

HARD_BOUNCE = "hard_bounce"
COMPLAINT = "complaint"
UNSUBSCRIBED = "unsubscribed"
_REASON_LIMIT = 500


class SuppressedKind(StrEnum):
    """The kinds of recipients that may be on the list."""

    PHONE = "phone"
    EMAIL = "email"


class SuppressionRequest(BaseModel):
    """Whom not to write to."""

    model_config = ConfigDict(extra="forbid", strict=True)

    recipient: Recipient = Field(examples=["01012345678"])
    recipient_kind: Annotated[SuppressedKind, Field(strict=False)] | None = Field(
        default=None, description="Left out: an e-mail address where it has an @, else a phone"
    )
    list: Word | None = Field(
        default=None,
        description="Of an e-mail address: only what is of this list; left out: nothing at all",
    )
    tenant_id: TenantId | None = Field(
        default=None, description="Not by this tenant; left out: by nobody"
    )
    reason: Annotated[str, StringConstraints(max_length=_REASON_LIMIT, pattern=r"^[^\x00]*$")] | (
        None
    ) = None


class SuppressionView(BaseModel):
    """One entry of the list."""

    id: int
    tenant_id: int | None
    recipient_kind: SuppressedKind
    recipient: str
    list: str | None = Field(default=None, description="The list that it is about; none: all")
    reason: str | None = Field(
        description="hard_bounce, complaint, unsubscribed, or the words of whoever put it there"
    )
    detail: str | None = Field(default=None, description="What the provider said")
    delivery_id: int | None = Field(default=None, description="The delivery it was learnt from")
    created_at: Moment


class SuppressionList:
    """What operators and tenants do to the list."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, request: SuppressionRequest, own: int | None = None) -> SuppressionView:
        """Put somebody on the list; again changes only the reason. Raises InvalidRequest."""
        kind = request.recipient_kind or kind_of(request.recipient)
        recipient = canonical(request.recipient, kind)
        _refuse_nobody(recipient, kind)
        if request.list is not None and kind is not SuppressedKind.EMAIL:
            words = "only mails have lists: left out, nothing is sent to this number"
            raise InvalidRequest([FieldProblem("/list", "not_a_mail", words)])
        if own is not None and request.tenant_id not in (None, own):
            raise InvalidRequest(
                [FieldProblem("/tenant_id", "tenant_mismatch", "is not the tenant of the API key")]
            )
        rows = await self._database.fetch(
            _statement("add"),
            {
                "tenant": request.tenant_id if own is None else own,
                "kind": kind.value,
                "recipient": recipient,
                "list": request.list and list_name(request.list),
                "reason": request.reason,
            },
        )
        return SuppressionView.model_validate(rows[0][0])

    async def unsubscribe(self, subscription: Subscription) -> bool:
        """Take somebody out of a list; False where they were out of it before."""
        learnt = Learnt(
            subscription.address,
            UNSUBSCRIBED,
            tenant_id=subscription.tenant_id,
            list=subscription.list,
        )
        async with self._database.transaction() as tx:
            return await learn(tx, SuppressedKind.EMAIL, [learnt]) > 0

    async def remove(self, identity: int, own: int | None = None) -> None:
        """Take an entry off the list. Raises NotFound."""
        if not await self._database.fetch(SQL["remove"], {"id": identity, "tenant": own}):
            raise NotFound("suppression_not_found", f"there is no suppression {identity}")

    async def list(
        self,
        *,
        own: int | None = None,
        recipient: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[SuppressionView]:
        """A page of the list, newest first. Raises InvalidCursor."""
        if recipient is not None:
            recipient = canonical(recipient, kind_of(recipient))
        rows = await self._database.fetch(
            _listing(own, recipient),
            {
                "before": cursors.read_delivery_cursor(cursor) if cursor else None,
                "tenant": own,
                "recipient": recipient,
                "limit": limit + 1,
            },
        )
        items = [SuppressionView.model_validate(row[0]) for row in rows]
        return Page.of(items, limit, lambda last: cursors.delivery_cursor(last.id))


@dataclass(frozen=True, slots=True)
class Learnt:
    """What was heard of a recipient: that nothing more may, or can, be sent there.

    No tenant: by nobody; no list: of nothing. `detail` are the words of whoever said so, and
    `delivery_id` is the delivery that it was about.
    """

    recipient: str
    reason: str
    detail: str | None = None
    delivery_id: int | None = None
    tenant_id: int | None = None
    list: str | None = None


async def learn(tx: Connection, kind: SuppressedKind, learnt: Sequence[Learnt]) -> int:
    """Put recipients on the list, in the caller's transaction; how many were not there yet."""
    if not learnt:
        return 0
    cursor = await tx.execute(
        SQL["suppress"],
        {
            "kind": kind.value,
            "recipients": [canonical(each.recipient, kind) for each in learnt],
            "tenants": [each.tenant_id for each in learnt],
            "lists": [each.list for each in learnt],
            "reasons": [_storable(each.reason) for each in learnt],
            "details": [_storable(each.detail) if each.detail else None for each in learnt],
            "deliveries": [each.delivery_id for each in learnt],
        },
    )
    return len(await cursor.fetchall())


def _storable(words: str) -> str:
    return words[:_REASON_LIMIT].replace("\0", "").encode(errors="replace").decode()


def kind_of(recipient: str) -> SuppressedKind:
    """What a recipient looks like."""
    return SuppressedKind.EMAIL if "@" in recipient else SuppressedKind.PHONE


def canonical(recipient: str, kind: SuppressedKind) -> str:
    """One spelling of a recipient, so that a list entry is found whatever was typed."""
    if kind is SuppressedKind.EMAIL:
        try:
            return parse_mailbox(recipient.strip()).canonical
        except ValueError:
            return recipient.strip().lower()
    try:
        return normalise_number(recipient)
    except BadNumber:
        return recipient.strip()


def _refuse_nobody(recipient: str, kind: SuppressedKind) -> None:
    """A slip must not look like an opt-out that holds."""
    try:
        if kind is SuppressedKind.PHONE:
            normalise_number(recipient)
        else:
            parse_mailbox(recipient)
    except BadNumber as error:
        raise InvalidRequest([FieldProblem("/recipient", error.code, str(error))]) from None
    except ValueError as error:
        raise InvalidRequest([FieldProblem("/recipient", "recipient", str(error))]) from None


def _listing(own: int | None, recipient: str | None) -> LiteralString:
    filters: LiteralString = ""
    if recipient is not None:
        filters = SQL["of_recipient" if own is None else "of_recipient_for_tenant"]
    elif own is not None:
        filters = SQL["of_tenant"]
    return _statement("list").replace("{filters}", filters)


def _statement(name: str) -> LiteralString:
    return SQL[name].replace("{suppression}", SQL["suppression_columns"])
