"""Replays: dead letters sent again by a filter, as jobs that are stored and survive restarts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from allim.base.errors import Conflict, NotFound
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub import cursors
from allim.hub.audit import record
from allim.hub.coalescer import OnCommit
from allim.hub.model import ChannelName, Moment, Recipient, TenantId, Word
from allim.hub.operations import DISCARDABLE
from allim.hub.status import DeliveryStatus
from allim.hub.views import Page, ReplayCountView, ReplayGroup, ReplayView

SQL = Statements.load("allim.hub", "replays.sql")

LANE = "REPLAY"
"""What is woken when a job has a step to do."""
GROUPS_SHOWN = 100


def _replayable(status: DeliveryStatus) -> DeliveryStatus:
    if status not in DISCARDABLE:
        names = ", ".join(sorted(DISCARDABLE))
        raise ValueError(f"must be one of {names}: nothing else waits for an operator")
    return status


_Lax = Annotated[Moment, Field(strict=False)]
"""A time that may come as a text."""


class ReplayFilter(BaseModel):
    """Which deliveries; every field that is set must fit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)

    status: list[Annotated[DeliveryStatus, Field(strict=False), AfterValidator(_replayable)]] = (
        Field(
            default=[DeliveryStatus.DEAD],
            min_length=1,
            max_length=3,
            description="DEAD, HELD (nobody knows whether it arrived) or SKIPPED",
        )
    )
    channel: ChannelName | None = None
    error_code: Word | None = Field(default=None, examples=["http_500"])
    recipient: Recipient | None = None
    source: Word | None = None
    type: Word | None = None
    notification_id: Annotated[UUID, Field(strict=False)] | None = None
    from_: _Lax | None = Field(default=None, alias="from", description="Created at or after")
    to: _Lax | None = Field(default=None, description="Created before")


class ReplayRequest(BaseModel):
    """What is to be sent again, how fast, and why."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    filter: ReplayFilter
    rate_per_second: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] | None = Field(
        default=None, description="The most deliveries a second; as fast as it goes if left out"
    )
    reason: Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")] = ""
    dry_run: bool = Field(default=False, description="Only count: nothing is stored or sent")
    tenant_id: TenantId | None = None


class Replays:
    """Replay jobs. `tenant` restricts what a caller may see and touch (None: all)."""

    def __init__(self, database: Database, on_commit: OnCommit = lambda lanes: None) -> None:
        self._database = database
        self._on_commit = on_commit

    async def count(self, wanted: ReplayFilter, tenant: int | None) -> ReplayCountView:
        """What a replay would send now, in groups, the largest first; the first 100 are told."""
        async with self._database.connection() as connection:
            groups = await _count(connection, wanted, tenant)
        return ReplayCountView(
            total=sum(group.count for group in groups), groups=list(groups[:GROUPS_SHOWN])
        )

    async def create(self, request: ReplayRequest, *, tenant: int | None, by: str) -> ReplayView:
        """Store a job; relays do its steps. One that means nothing is COMPLETED at once."""
        wanted = request.filter
        async with self._database.transaction() as tx:
            newest = await (await tx.execute(SQL["newest"])).fetchone()
            assert newest is not None
            groups = await _count(tx, wanted, tenant)
            row = await (
                await tx.execute(
                    _job("create"),
                    {
                        "tenant_id": tenant,
                        "filter": Jsonb(wanted.model_dump(mode="json", by_alias=True)),
                        "statuses": list(wanted.status),
                        "channels": sorted({group.channel for group in groups}),
                        "up_to": newest[0],
                        "rate": request.rate_per_second,
                        "total": sum(group.count for group in groups),
                        "reason": request.reason,
                        "by": by,
                    },
                )
            ).fetchone()
            assert row is not None
            job = ReplayView.model_validate(row[0])
            await _audit(tx, "create", job, by, {"reason": request.reason, "total": job.total})
        self._on_commit({LANE})
        return job

    async def one(self, identity: int, tenant: int | None = None) -> ReplayView:
        """One job; raises NotFound."""
        rows = await self._database.fetch(_job("one"), {"id": identity, "tenant": tenant})
        if not rows:
            raise _not_found(identity)
        return ReplayView.model_validate(rows[0][0])

    async def list(
        self, tenant: int | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> Page[ReplayView]:
        """A page of jobs, newest first. Raises InvalidCursor."""
        before = cursors.read_delivery_cursor(cursor) if cursor else None
        rows = await self._database.fetch(
            _job("list"), {"before": before, "tenant": tenant, "limit": limit + 1}
        )
        items = [ReplayView.model_validate(row[0]) for row in rows]
        return Page.of(items, limit, lambda last: cursors.delivery_cursor(last.id))

    async def pause(self, identity: int, *, tenant: int | None, by: str) -> ReplayView:
        """Let no further step begin. Raises Conflict unless it runs, and NotFound."""
        return await self._move("pause", identity, tenant, by, ["RUNNING"], "PAUSED")

    async def resume(self, identity: int, *, tenant: int | None, by: str) -> ReplayView:
        """Go on where it stopped. Raises Conflict unless it is paused, and NotFound."""
        return await self._move("resume", identity, tenant, by, ["PAUSED"], "RUNNING")

    async def cancel(self, identity: int, *, tenant: int | None, by: str) -> ReplayView:
        """End it; what it has sent again stays so. Raises Conflict once ended, and NotFound."""
        return await self._move("cancel", identity, tenant, by, ["RUNNING", "PAUSED"], "CANCELED")

    async def _move(
        self, action: str, identity: int, tenant: int | None, by: str, since: Sequence[str], to: str
    ) -> ReplayView:
        async with self._database.transaction() as tx:
            parameters = {"id": identity, "tenant": tenant, "from": list(since), "to": to}
            row = await (await tx.execute(_job("move"), parameters)).fetchone()
            if row is None:
                found = await (await tx.execute(_job("one"), parameters)).fetchone()
                if found is None:
                    raise _not_found(identity)
                raise Conflict(
                    f"not_{action}able",
                    f"replay {identity} is {found[0]['status']}; only what is"
                    f" {' or '.join(since)} can be {_DONE[action]}",
                )
            job = ReplayView.model_validate(row[0])
            await _audit(tx, action, job, by, {"replayed": job.replayed})
        if to == "RUNNING":
            self._on_commit({LANE})
        return job


_DONE = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}


def parameters_of(wanted: ReplayFilter, tenant: int | None) -> dict[str, Any]:
    """The parameters of the fragment `fitting`."""
    return {
        "tenant_id": tenant,
        "error_code": wanted.error_code,
        "recipient": wanted.recipient,
        "notification_id": wanted.notification_id,
        "source": wanted.source,
        "type": wanted.type,
        "from": wanted.from_,
        "to": wanted.to,
    }


def statement(name: str) -> LiteralString:
    """A statement with its filter filled in."""
    return SQL[name].replace("{fitting}", SQL["fitting"])


def _job(name: str) -> LiteralString:
    return SQL[name].replace("{job}", SQL["job"])


async def _count(
    connection: Connection, wanted: ReplayFilter, tenant: int | None
) -> Sequence[ReplayGroup]:
    rows = await (
        await connection.execute(
            statement("count"),
            {
                **parameters_of(wanted, tenant),
                "statuses": list(wanted.status),
                "channels": None if wanted.channel is None else [wanted.channel],
            },
        )
    ).fetchall()
    return [
        ReplayGroup(channel=channel, status=status, error_code=code, count=count)
        for channel, status, code, count in rows
    ]


async def _audit(
    tx: Connection, action: str, job: ReplayView, by: str, detail: dict[str, Any]
) -> None:
    await record(
        tx,
        actor=by,
        action=f"replay.{action}",
        subject=f"replay {job.id}",
        tenant=job.tenant_id,
        detail=detail,
    )


def _not_found(identity: int) -> NotFound:
    return NotFound("replay_not_found", f"there is no replay {identity}")
