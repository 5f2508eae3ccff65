"""Quiet hours per tenant and channel: what is due in them waits for their end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, LiteralString
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import NotFound
from allim.channels.channel import Message
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub import audit, cursors
from allim.hub.model import PRIORITIES, ChannelName, Priority, TenantId, Title
from allim.hub.quiet_times import EVERY_DAY, QuietTimes, quiet_until
from allim.hub.views import Moment, Page
from allim.relay.outcomes import Outcome
from allim.relay.policy import OpenPolicy
from allim.relay.settlement import Settlement
from allim.relay.work import Work

SQL = Statements.load("allim.hub", "quiet_hours.sql")

KEPT_SECONDS = 5.0
"""How long a relay goes by the rules that it has read."""
CHANGING_SECONDS = 1.0
"""After which what was put off while windows changed is judged anew."""
CODE = "quiet_hours"


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _known_zone(name: str) -> str:
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        words = "must be a time zone of the IANA database, as Asia/Seoul"
        raise PydanticCustomError("time_zone", words) from None
    return name


ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["21:00"])]
Weekday = Annotated[int, Field(ge=1, le=7)]


class QuietHoursRequest(BaseModel):
    """A window in which nothing is sent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    tenant_id: TenantId | None = Field(default=None, description="Every tenant, if left out")
    channel: ChannelName | None = Field(default=None, description="Every channel, if left out")
    begins: ClockTime = Field(alias="from", description="By the clocks of the time zone")
    ends: ClockTime = Field(
        alias="until", description="On the day after, where it is not after `from`"
    )
    time_zone: Annotated[str, Field(max_length=64), AfterValidator(_known_zone)] = "Asia/Seoul"
    days: Annotated[list[Weekday], Field(min_length=1, max_length=7)] = Field(
        default=sorted(EVERY_DAY), description="On which it begins: 1 is Monday, 7 Sunday"
    )
    exempt: Priority | None = Field(
        default=Priority.HIGH,
        strict=False,
        description="This priority and higher ones go at any hour; null: none does",
    )
    reason: Title | None = None

    @model_validator(mode="after")
    def _ends_some_day(self) -> QuietHoursRequest:
        if self.begins == self.ends and set(self.days) == EVERY_DAY:
            raise PydanticCustomError("never_ends", "would never end: nothing would be sent")
        return self


class QuietHoursView(BaseModel):
    """A window in which nothing is sent."""

    model_config = ConfigDict(populate_by_name=True)

    id: int
    tenant_id: int | None
    channel: str | None
    begins: str = Field(alias="from")
    ends: str = Field(alias="until")
    time_zone: str
    days: list[int]
    exempt: Annotated[
        Priority | None,
        BeforeValidator(lambda rank: PRIORITIES[rank] if isinstance(rank, int) else rank),
    ]
    reason: str | None
    created_by: str
    created_at: Moment


class QuietHoursBook:
    """The windows of a database. `own` is the tenant of a caller who may see one only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, request: QuietHoursRequest, *, tenant: int | None, actor: str
    ) -> QuietHoursView:
        """Add a window; relays keep it within KEPT_SECONDS.

        What waits for the end of another one is judged anew: this one may go before it.
        """
        async with self._database.transaction() as tx:
            await tx.execute(SQL["lock_change"])
            cursor = await tx.execute(
                _statement("add"),
                {
                    "tenant": tenant,
                    "channel": request.channel,
                    "begins": request.begins,
                    "ends": request.ends,
                    "time_zone": request.time_zone,
                    "days": sorted(set(request.days)),
                    "exempt": None if request.exempt is None else request.exempt.rank,
                    "reason": request.reason,
                    "created_by": actor,
                },
            )
            ((row,),) = await cursor.fetchall()
            view = QuietHoursView.model_validate(row)
            subject = f"quiet_hours {view.id}"
            await audit.record(
                tx, actor=actor, action="quiet_hours.add", subject=subject, tenant=tenant
            )
            await _wake(tx, tenant, request.channel)
        return view

    async def remove(self, identity: int, *, own: int | None, actor: str) -> None:
        """Remove a window: what waits for its end is judged anew at once. Raises NotFound."""
        async with self._database.transaction() as tx:
            await tx.execute(SQL["lock_change"])
            cursor = await tx.execute(SQL["remove"], {"id": identity, "tenant": own})
            removed = await cursor.fetchone()
            if removed is None:
                raise NotFound("quiet_hours_not_found", f"there are no quiet hours {identity}")
            subject = f"quiet_hours {identity}"
            await audit.record(
                tx, actor=actor, action="quiet_hours.remove", subject=subject, tenant=own
            )
            await _wake(tx, *removed)

    async def list(
        self, *, own: int | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[QuietHoursView]:
        """A page of windows, newest first. Raises InvalidCursor."""
        before = cursors.read_delivery_cursor(cursor) if cursor else None
        parameters = {"before": before, "tenant": own, "limit": limit + 1}
        rows = await self._database.fetch(_statement("list"), parameters)
        items = [QuietHoursView.model_validate(row[0]) for row in rows]
        more = len(items) > limit
        items = items[:limit]
        return Page(items=items, next=cursors.delivery_cursor(items[-1].id) if more else None)


@dataclass(frozen=True, slots=True)
class Rule:
    """A window, and whom it is for. `exempt` is the last rank that goes all the same, or -1."""

    tenant: int | None
    channel: str | None
    times: QuietTimes
    exempt: int


def rules_for(rules: Sequence[Rule], tenant: int | None, channel: str) -> Sequence[Rule]:
    """Those that hold for a delivery: the most particular that there are, and no others.

    A tenant's own go before everybody's, those of a channel before those of all.
    """
    for whose in [tenant, None] if tenant is not None else [None]:
        for where in (channel, None):
            if found := [r for r in rules if r.tenant == whose and r.channel == where]:
                return found
    return ()


class KnownRules:
    """The rules as one relay process knows them; its lanes share them."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._rules: Sequence[Rule] = ()
        self._until = float("-inf")

    @property
    def are_old(self) -> bool:
        """Whether they must be read again."""
        return self._clock() >= self._until

    def concern(self, channel: str) -> bool:
        """Whether any holds in this channel, as far as is known."""
        return any(rule.channel in (None, channel) for rule in self._rules)

    async def current(self, tx: Connection) -> Sequence[Rule]:
        """The rules, read again where they are old."""
        return await self.read(tx) if self.are_old else self._rules

    async def read(self, tx: Connection) -> Sequence[Rule]:
        """The rules as they are now."""
        rows = await (await tx.execute(SQL["rules"])).fetchall()
        self._rules = [
            Rule(
                tenant,
                channel,
                QuietTimes(begins, ends, _zone(zone), frozenset(days)),
                -1 if exempt is None else exempt,
            )
            for tenant, channel, begins, ends, zone, days, exempt in rows
        ]
        self._until = self._clock() + KEPT_SECONDS
        return self._rules


Now = Callable[[Connection], Awaitable[datetime]]


async def database_now(tx: Connection) -> datetime:
    """The time by the database's clock."""
    row = await (await tx.execute(SQL["now"])).fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


class QuietHoursPolicy(OpenPolicy):
    """Snoozes what is due in quiet hours, in the claiming transaction and so before it is paid for.

    Costs nothing where no window concerns the lane, but for a look every KEPT_SECONDS.
    """

    def __init__(self, channel: str, rules: KnownRules, now: Now = database_now) -> None:
        self._channel = channel
        self._rules = rules
        self._now = now

    @property
    def joins_claim(self) -> bool:
        """Where a window concerns this lane, or nobody has looked for a while."""
        return self._rules.are_old or self._rules.concern(self._channel)

    async def on_attempt(
        self, tx: Connection, batch: Sequence[Work[Message]]
    ) -> Mapping[int, Outcome]:
        """Snooze what must wait."""
        known = await self._rules.current(tx)
        if not self._rules.concern(self._channel):
            return {}
        now = await self._now(tx)
        if not any(self._waits(known, batch, now).values()):
            return {}
        # By what holds now: a window that is gone must not put anything off till its end.
        return await self._snoozes(tx, batch, await self._rules.read(tx), now)

    def joins_settle(self, settlements: Sequence[Settlement[Message]]) -> bool:
        """Where anything was put off by a window."""
        return any(settlement.code == CODE for settlement in settlements)

    async def on_settle(self, tx: Connection, settled: Sequence[Settlement[Message]]) -> None:
        """Put off till when holds now: windows may have changed since the claim.

        Whoever changes them wakes what it finds waiting, and this was not yet to be found.
        """
        held = {one.work.id: one for one in settled if one.code == CODE}
        if not held:
            return
        row = await (await tx.execute(SQL["no_change"])).fetchone()
        if row is None or not row[0]:
            waits = dict.fromkeys(held, CHANGING_SECONDS)
        else:
            works = [one.work for one in held.values()]
            rules, now = await self._rules.read(tx), await self._now(tx)
            snoozes = await self._snoozes(tx, works, rules, now)
            waits = {
                work.id: (snoozes[work.id].retry_after or 0.0) if work.id in snoozes else 0.0
                for work in works
            }
        changed = {"ids": list(waits), "seconds": list(waits.values()), "code": CODE}
        await tx.execute(SQL["wait"], changed)

    async def _snoozes(
        self,
        tx: Connection,
        batch: Sequence[Work[Message]],
        rules: Sequence[Rule],
        now: datetime,
    ) -> Mapping[int, Outcome]:
        waits = self._waits(rules, batch, now)
        held = [work for work in batch if work.content.tenant_id in waits]
        if not held:
            return {}
        rows = await tx.execute(SQL["priorities"], {"ids": [work.id for work in held]})
        ranks: dict[int, int] = dict(await rows.fetchall())
        return {
            work.id: snooze
            for work in held
            if (snooze := waits[work.content.tenant_id][ranks[work.id]]) is not None
        }

    def _waits(
        self, known: Sequence[Rule], batch: Sequence[Work[Message]], now: datetime
    ) -> Mapping[int | None, Sequence[Outcome | None]]:
        """What holds for each tenant that must wait, by priority."""
        tenants = {work.content.tenant_id for work in batch}
        waits = {tenant: self._wait(known, tenant, now) for tenant in tenants}
        return {tenant: ranks for tenant, ranks in waits.items() if any(ranks)}

    def _wait(
        self, known: Sequence[Rule], tenant: int | None, now: datetime
    ) -> Sequence[Outcome | None]:
        """What holds for each rank of priority."""
        rules = rules_for(known, tenant, self._channel)
        waits: list[Outcome | None] = []
        for priority in PRIORITIES:
            windows = [rule.times for rule in rules if rule.exempt < priority.rank]
            until = quiet_until(windows, now)
            if until is None:
                waits.append(None)
                continue
            local = until.astimezone(windows[0].zone)
            words = f"quiet hours until {local:%Y-%m-%d %H:%M} ({windows[0].zone.key})"
            waits.append(Outcome.snooze(CODE, (until - now).total_seconds(), words))
        return waits


async def _wake(tx: Connection, tenant: int | None, channel: str | None) -> None:
    await tx.execute(SQL["wake"], {"code": CODE, "tenant": tenant, "channel": channel})


def _statement(name: str) -> LiteralString:
    return SQL[name].replace("{quiet_hours}", SQL["quiet_hours_json"])
