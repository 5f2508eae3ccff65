"""Dead letters: what waits for an operator, in groups, and given up in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub import cursors
from allim.hub.audit import record
from allim.hub.replays import SQL as REPLAYS
from allim.hub.replays import ReplayFilter, parameters_of
from allim.hub.status import DeliveryStatus

SQL = Statements.load("allim.hub", "dead_letters.sql")

GROUPS = 200
COUNTED = 10_000
"""A group is counted up to here; `Group.count` is one more where there are more."""
BATCH = 500
MOST = 10_000
"""Deliveries that one call gives up at most: the rest is for the next one."""


@dataclass(frozen=True, slots=True)
class Group:
    """Dead or held deliveries of one channel and error; times are those of their creation."""

    status: DeliveryStatus
    channel: str
    error_code: str | None
    count: int
    oldest: datetime
    newest: datetime
    sample: str | None


@dataclass(frozen=True, slots=True)
class Member:
    """One delivery of a group."""

    id: int
    notification_id: UUID
    recipient: str | None
    source: str
    type: str
    title: str | None
    retry_count: int
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    tenant_id: int | None


@dataclass(frozen=True, slots=True)
class Discarded:
    """How many were given up; `more` when the bound of one call was reached."""

    count: int
    more: bool


class DeadLetters:
    """Reads dead letters, and gives them up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def groups(self, *, counted: int = COUNTED) -> Sequence[Group]:
        """Every group, the largest first; 200 at most, each counted up to `counted`."""
        rows = await self._database.fetch(SQL["groups"], {"groups": GROUPS, "most": counted + 1})
        return [Group(DeliveryStatus(row[0]), *row[1:]) for row in rows]

    async def members(
        self,
        status: DeliveryStatus,
        channel: str,
        error_code: str | None,
        *,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[Sequence[Member], str | None]:
        """The deliveries of one group, newest first. Raises InvalidCursor."""
        rows = await self._database.fetch(
            SQL["members"],
            {
                "status": status.value,
                "channel": channel,
                "code": error_code or "",
                "before": cursors.read_delivery_cursor(cursor) if cursor else None,
                "limit": limit + 1,
            },
        )
        members = [Member(*row) for row in rows[:limit]]
        more = len(rows) > limit
        return members, cursors.delivery_cursor(members[-1].id) if more else None

    async def discard(
        self,
        wanted: ReplayFilter,
        reason: str,
        *,
        tenant: int | None,
        by: str,
        codeless: bool = False,
    ) -> Discarded:
        """Give up on what a filter means now, 10,000 at most, and put it on record.

        `codeless` means only what has no error code, which no filter can say.
        In batches, each in a transaction of its own with its entry in the audit log: what is
        interrupted half way may be called again, and nothing that dies later is touched.
        """
        [(up_to,)] = await self._database.fetch(REPLAYS["newest"])
        parameters = {
            **parameters_of(wanted, tenant),
            "statuses": [status.value for status in wanted.status],
            "channel": wanted.channel,
            "codeless": codeless,
            "up_to": up_to,
            "limit": BATCH,
        }
        after, looked_at, count = 0, 0, 0
        while looked_at < MOST:
            async with self._database.transaction() as tx:
                found = await (
                    await tx.execute(
                        SQL["next"].replace("{fitting}", REPLAYS["fitting"]),
                        {**parameters, "after": after},
                    )
                ).fetchall()
                if found:
                    count += await _discard(tx, found, wanted, reason, tenant=tenant, by=by)
            if len(found) < BATCH:
                return Discarded(count, more=False)
            looked_at += len(found)
            after = found[-1][0]
        return Discarded(count, more=True)


async def _discard(
    tx: Connection,
    found: Sequence[tuple[int, UUID]],
    wanted: ReplayFilter,
    reason: str,
    *,
    tenant: int | None,
    by: str,
) -> int:
    notifications = sorted({notification for _, notification in found})
    await tx.execute(REPLAYS["lock_notifications"], {"ids": notifications})
    rows = await (
        await tx.execute(
            SQL["discard"],
            {
                "ids": [identity for identity, _ in found],
                "statuses": [status.value for status in wanted.status],
                "reason": reason,
            },
        )
    ).fetchall()
    if rows:
        await record(
            tx,
            actor=by,
            action="deliveries.discard",
            subject=f"deliveries {found[0][0]} to {found[-1][0]}",
            tenant=tenant,
            detail={
                "reason": reason,
                "discarded": len(rows),
                "filter": wanted.model_dump(mode="json", by_alias=True, exclude_none=True),
            },
        )
    return len(rows)
