"""Opt-outs: whoever must not be written to is not, and numbers that are gone are learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, LiteralString

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from allim.base.errors import FieldProblem, InvalidRequest, NotFound
from allim.channels.channel import Message
from allim.channels.korean_sms import BadNumber, normalise_number
from allim.channels.solapi.codes import suppresses
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub import cursors
from allim.hub.model import Recipient, TenantId
from allim.hub.views import Moment, Page
from allim.relay.outcomes import Outcome
from allim.relay.policy import OpenPolicy
from allim.relay.settlement import Settlement
from allim.relay.work import Work

SQL = Statements.load("allim.messaging", "suppression.sql")

SUPPRESSED = Outcome.skip("suppressed", "the recipient is on the opt-out list")
_REASON_LIMIT = 500


class SuppressedKind(StrEnum):
    """The kinds of recipients that may be on the list."""

    PHONE = "phone"
    EMAIL = "email"


class SuppressionRequest(BaseModel):
    """Whom not to write to."""

    model_config = ConfigDict(extra="forbid", strict=True)

    recipient: Recipient = Field(examples=["01012345678"])
    recipient_kind: Annotated[SuppressedKind, Field(strict=False)] = SuppressedKind.PHONE
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
    reason: str | None
    created_at: Moment


class SuppressionList:
    """What operators and tenants do to the list."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, request: SuppressionRequest, own: int | None = None) -> SuppressionView:
        """Put somebody on the list; again changes only the reason. Raises InvalidRequest."""
        recipient = canonical(request.recipient, request.recipient_kind)
        _refuse_nobody(recipient, request.recipient_kind)
        if own is not None and request.tenant_id not in (None, own):
            raise InvalidRequest(
                [FieldProblem("/tenant_id", "tenant_mismatch", "is not the tenant of the API key")]
            )
        rows = await self._database.fetch(
            _statement("add"),
            {
                "tenant": request.tenant_id if own is None else own,
                "kind": request.recipient_kind.value,
                "recipient": recipient,
                "reason": request.reason,
            },
        )
        return SuppressionView.model_validate(rows[0][0])

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
            kind = SuppressedKind.EMAIL if "@" in recipient else SuppressedKind.PHONE
            recipient = canonical(recipient, kind)
        rows = await self._database.fetch(
            _statement("list"),
            {
                "before": cursors.read_delivery_cursor(cursor) if cursor else None,
                "tenant": own,
                "recipient": recipient,
                "limit": limit + 1,
            },
        )
        items = [SuppressionView.model_validate(row[0]) for row in rows]
        more = len(items) > limit
        items = items[:limit]
        return Page(items=items, next=cursors.delivery_cursor(items[-1].id) if more else None)


class SuppressionPolicy(OpenPolicy):
    """Skips, in the claiming transaction and so before anything is paid, who opted out.

    A provider's word that a number takes nothing more puts it on the list, for every tenant.
    """

    def __init__(self, kind: SuppressedKind) -> None:
        self._kind = kind

    async def on_attempt(
        self, tx: Connection, batch: Sequence[Work[Message]]
    ) -> Mapping[int, Outcome]:
        """Skip those on the list."""
        asked = [work for work in batch if work.content.recipient]
        cursor = await tx.execute(
            SQL["suppressed"],
            {
                "ids": [work.id for work in asked],
                "tenants": [work.content.tenant_id for work in asked],
                "recipients": [
                    canonical(work.content.recipient or "", self._kind) for work in asked
                ],
                "kind": self._kind.value,
            },
        )
        return {row[0]: SUPPRESSED for row in await cursor.fetchall()}

    def joins_settle(self, settlements: Sequence[Settlement[Message]]) -> bool:
        """Only where a number takes nothing more."""
        return any(map(_gone, settlements))

    async def on_settle(self, tx: Connection, settled: Sequence[Settlement[Message]]) -> None:
        """Put numbers that take nothing more on the list."""
        gone = {
            each.work.content.recipient: each.outcome.detail or each.outcome.code
            for each in settled
            if _gone(each) and each.work.content.recipient
        }
        if gone:
            await self._suppress(tx, gone)

    async def on_receipt(self, tx: Connection, ended: Sequence[int]) -> None:
        """The same, where the report said it."""
        rows = await (await tx.execute(SQL["ended_by"], {"ids": list(ended)})).fetchall()
        if gone := {
            recipient: error or code for recipient, code, error in rows if suppresses(code)
        }:
            await self._suppress(tx, gone)

    async def _suppress(self, tx: Connection, gone: Mapping[str, str | None]) -> None:
        reasons = [(reason or "it is gone")[:_REASON_LIMIT] for reason in gone.values()]
        await tx.execute(
            SQL["suppress"],
            {
                "kind": self._kind.value,
                "recipients": [canonical(recipient, self._kind) for recipient in gone],
                "reasons": [r.replace("\0", "").encode(errors="replace").decode() for r in reasons],
            },
        )


def _gone(settlement: Settlement[Message]) -> bool:
    return settlement.outcome.disable_target or suppresses(settlement.outcome.code)


def canonical(recipient: str, kind: SuppressedKind) -> str:
    """One spelling of a recipient, so that a list entry is found whatever was typed."""
    if kind is SuppressedKind.EMAIL:
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
        elif "@" not in recipient:
            raise InvalidRequest([FieldProblem("/recipient", "recipient", "is no e-mail address")])
    except BadNumber as error:
        raise InvalidRequest([FieldProblem("/recipient", error.code, str(error))]) from None


def _statement(name: str) -> LiteralString:
    return SQL[name].replace("{suppression}", SQL["suppression_columns"])
