"""What relays did, by minute and hour, and which of them are alive: kept in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from psycopg.types.json import Jsonb

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.relay.tally import Broken, Cell, Sums

SQL = Statements.load("allim.hub", "rollups.sql")

ALIVE_SECONDS = 30.0
"""A relay that has not beaten for so long is taken for lost."""
SHOWN_SECONDS = 3600.0
"""For how long one that was lost is still shown."""
MINUTE_SECONDS = 24 * 3600.0
HOUR_SECONDS = 35 * 24 * 3600.0
SETTLE_SECONDS = 30.0
"""What comes into the box by transactions that are open for longer may be missed."""
COUNTED_AT_ONCE = 200_000
_RELAYS = 200


class Window(Enum):
    """What is shown together: how many steps of how many seconds, out of which rows."""

    HOUR = ("hour", 60, 60, ("minute",))
    DAY = ("day", 144, 600, ("minute", "hour"))
    WEEK = ("week", 168, 3600, ("minute", "hour"))

    def __init__(self, word: str, steps: int, step: int, spans: Sequence[str]) -> None:
        self.word = word
        self.steps = steps
        self.step = step
        self.spans = spans


@dataclass(frozen=True, slots=True)
class Point:
    """One step of one channel (of the outbox: topic). `at` is seconds since 1970."""

    at: int
    box: str
    channel: str
    created: int
    delivered: int
    retried: int
    dead: int
    calls: int
    call_seconds: float
    slowest: float


@dataclass(frozen=True, slots=True)
class Series:
    """The points of a window, as far as there was anything, with the moment it was read."""

    first: int
    now: float
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class RelayView:
    """A process with relays in it, as it said last."""

    worker: str
    lanes: Sequence[str]
    slots: int
    breakers: Sequence[BreakerView]
    since: datetime
    beat_at: datetime
    alive: bool


@dataclass(frozen=True, slots=True)
class BreakerView:
    """A target that a relay leaves alone."""

    lane: str
    target: str
    since: datetime
    worker: str


class Rollups:
    """Writes, keeps and reads rollups and beats. Raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, worker: str, sums: Mapping[Cell, Sums]) -> float:
        """Write a worker's sums, in place of what it wrote of these minutes before.

        Answers the database's time, in seconds since 1970.
        """
        parameters: dict[str, Any] = {"worker": worker}
        for name in Cell._fields:
            parameters[name] = [getattr(cell, name) for cell in sums]
        for field in fields(Sums):
            parameters[field.name] = [getattr(each, field.name) for each in sums.values()]
        return float((await self._database.fetch(SQL["write"], parameters))[0][0])

    async def beat(
        self, worker: str, lanes: Sequence[str], *, slots: int, broken: Sequence[Broken]
    ) -> float:
        """Say that a worker is alive; answers as `write` does."""
        breakers = [{"lane": b.lane, "target": b.target, "since": b.since} for b in broken]
        parameters = {
            "worker": worker,
            "lanes": list(lanes),
            "slots": slots,
            "breakers": Jsonb(breakers),
        }
        return float((await self._database.fetch(SQL["beat"], parameters))[0][0])

    async def leave(self, worker: str) -> None:
        """A worker ends in good order."""
        await self._database.fetch(SQL["leave"], {"worker": worker})

    async def count_created(self) -> None:
        """Count what came into the boxes, unless another process does so now."""
        limits = {"settle": SETTLE_SECONDS, "most": COUNTED_AT_ONCE}
        await self._database.run_pinned(SQL["count_deliveries"], limits)
        await self._database.fetch(SQL["count_events"], limits)

    async def keep(self) -> None:
        """Make hours of old minutes; drop what is older than 35 days, and relays long lost."""
        async with self._database.transaction() as tx:
            row = await (await tx.execute(SQL["may_keep"])).fetchone()
            if row is None or not row[0]:
                return
            await tx.execute(SQL["compact"], {"minutes": MINUTE_SECONDS})
            await tx.execute(SQL["prune"], {"hours": HOUR_SECONDS})
            await tx.execute(SQL["forget_beats"], {"seconds": SHOWN_SECONDS})

    async def series(self, window: Window) -> Series:
        """What was done in a window that ends now."""
        [(now,)] = await self._database.fetch(SQL["clock"])
        first = int(now // window.step - window.steps + 1) * window.step
        rows = await self._database.fetch(
            SQL["series"], {"step": window.step, "since": first, "spans": list(window.spans)}
        )
        return Series(first, now, [Point(*row) for row in rows])

    async def relays(self) -> Sequence[RelayView]:
        """The processes with relays in them: alive, or lost within the last hour."""
        rows = await self._database.fetch(SQL["beats"], {"alive": ALIVE_SECONDS, "limit": _RELAYS})
        return [_relay(*row) for row in rows]


def _relay(
    worker: str,
    lanes: Sequence[str],
    slots: int,
    breakers: Sequence[Mapping[str, Any]],
    since: datetime,
    beat_at: datetime,
    alive: bool,
) -> RelayView:
    views = [
        BreakerView(b["lane"], b["target"], datetime.fromtimestamp(b["since"], UTC), worker)
        for b in breakers
    ]
    return RelayView(worker, lanes, slots, views, since, beat_at, alive)
