"""What people do to notifications and deliveries: cancel, retry, discard.

All of them take locks in the one order of the hub: notification, then deliveries by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from psycopg.rows import TupleRow

from allim.base.errors import Conflict, NotFound
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub.coalescer import OnCommit
from allim.hub.status import NOT_FINAL, DeliveryStatus, NotificationStatus
from allim.hub.views import CanceledView, DeliveryLine

SQL = Statements.load("allim.hub", "operations.sql")
AS_NEW = SQL["as_new"]
"""The columns of a delivery as if it had never been tried, for an UPDATE's SET."""

RETRYABLE = frozenset(
    {DeliveryStatus.DEAD, DeliveryStatus.SKIPPED, DeliveryStatus.HELD, DeliveryStatus.FAILED}
)
DISCARDABLE = frozenset({DeliveryStatus.DEAD, DeliveryStatus.SKIPPED, DeliveryStatus.HELD})


@dataclass(frozen=True, slots=True)
class _Member:
    """One locked delivery of a branch."""

    id: int
    status: DeliveryStatus
    superseded_by: int | None
    channel: str
    expired: bool | None


@dataclass(frozen=True, slots=True)
class _Branch:
    """A delivery and everything beneath it, locked until the end of the transaction."""

    delivery: _Member
    descendants: Sequence[_Member]
    canceled: bool


class Operations:
    """Cancel, retry and discard. `tenant` restricts what a caller may touch (None: all)."""

    def __init__(self, database: Database, on_commit: OnCommit = lambda lanes: None) -> None:
        self._database = database
        self._on_commit = on_commit

    async def cancel(self, notification: UUID, tenant: int | None = None) -> CanceledView:
        """Cancel what is neither under way nor done.

        Cancelling again what is wholly cancelled changes nothing and succeeds. Raises
        Conflict (``too_late``) when there is nothing left to cancel, and NotFound.
        """
        async with self._database.transaction() as tx:
            marked = await _one(tx, SQL["mark_canceled"], id=notification, tenant=tenant)
            if marked is None:
                raise NotFound("notification_not_found", f"there is no notification {notification}")
            await tx.execute(SQL["lock_cancelable"], {"id": notification})
            canceled = await (
                await tx.execute(SQL["cancel_deliveries"], {"id": notification})
            ).fetchall()
            found = await _one(tx, SQL["lines_of"], id=notification)
            assert found is not None
            status = NotificationStatus(found[0])
            if not canceled and status is not NotificationStatus.CANCELED:
                # Leaving the transaction this way also takes canceled_at back.
                raise Conflict("too_late", "all of it is under way or done already")
        return CanceledView(
            id=notification,
            status=status,
            canceled=len(canceled),
            deliveries=[DeliveryLine.model_validate(line) for line in found[1]],
        )

    async def retry(self, delivery: int, tenant: int | None = None) -> None:
        """Send a dead, skipped or held delivery again, or a failed one now.

        Its attempts stay on record and its retries are counted anew. What its fallbacks
        did is superseded. Raises Conflict, saying why it cannot be, and NotFound.
        """
        async with self._database.transaction() as tx:
            channel = await send_again(tx, delivery, tenant)
        self._on_commit({channel})

    async def discard(self, delivery: int, reason: str, tenant: int | None = None) -> None:
        """Give up on a dead, skipped or held delivery. Raises Conflict and NotFound."""
        async with self._database.transaction() as tx:
            own = (await _lock_branch(tx, delivery, tenant)).delivery
            if own.superseded_by is not None:
                raise Conflict("superseded", f"delivery {own.superseded_by} took its place")
            if own.status not in DISCARDABLE:
                raise Conflict("not_discardable", _only(own, DISCARDABLE, "discarded"))
            await tx.execute(SQL["discard"], {"id": delivery, "reason": reason})


async def send_again(tx: Connection, delivery: int, tenant: int | None = None) -> str:
    """Have one delivery sent again if `tx` commits; its channel. Raises as `Operations.retry`."""
    branch = await _lock_branch(tx, delivery, tenant)
    own = branch.delivery
    _refuse_retry(branch)
    if own.status is DeliveryStatus.FAILED:
        await tx.execute(SQL["retry_waiting"], {"id": delivery})
    else:
        await tx.execute(SQL["retry_finished"].replace("{as_new}", AS_NEW), {"id": delivery})
        await tx.execute(
            SQL["supersede"],
            {"by": delivery, "ids": [member.id for member in branch.descendants]},
        )
    return own.channel


def _refuse_retry(branch: _Branch) -> None:
    own = branch.delivery
    if own.status not in RETRYABLE:
        raise Conflict("not_retryable", _only(own, RETRYABLE, "retried"))
    if branch.canceled:
        raise Conflict("canceled", "its notification was cancelled")
    if own.expired:
        raise Conflict("expired", "it is past its expires_at")
    if own.superseded_by is not None and own.superseded_by < own.id:
        # A delivery above it was itself sent again, and speaks for the whole branch since.
        raise Conflict("superseded", f"delivery {own.superseded_by} took its place")
    for member in branch.descendants:
        if member.status in NOT_FINAL or member.status is DeliveryStatus.SUCCESS:
            raise Conflict("superseded", f"its fallback {member.id} is {member.status}")


def _only(own: _Member, possible: frozenset[DeliveryStatus], done: str) -> str:
    names = ", ".join(sorted(possible))
    return f"delivery {own.id} is {own.status}; only what is {names} can be {done}"


async def _lock_branch(tx: Connection, delivery: int, tenant: int | None) -> _Branch:
    family = await _one(tx, SQL["family_of"], id=delivery, tenant=tenant)
    if family is None:
        raise NotFound("delivery_not_found", f"there is no delivery {delivery}")
    notification = await _one(tx, SQL["lock_notification"], id=family[0])
    rows = await (
        await tx.execute(SQL["lock_branch"], {"id": delivery, "parent": family[1]})
    ).fetchall()
    members = {row[0]: _Member(row[0], DeliveryStatus(row[1]), *row[2:]) for row in rows}
    own = members.pop(delivery, None)
    if own is None or notification is None:
        raise NotFound("delivery_not_found", f"there is no delivery {delivery}")
    members.pop(family[1], None)
    return _Branch(own, list(members.values()), notification[0] is not None)


async def _one(tx: Connection, statement: LiteralString, **parameters: object) -> TupleRow | None:
    return await (await tx.execute(statement, parameters)).fetchone()
