"""Making, changing and reading schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, LiteralString

from psycopg.errors import UniqueViolation
from pydantic import ValidationError

from allim.base.errors import Conflict, FieldProblem, InvalidRequest, NotFound
from allim.base.validation import invalid_body
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub.cursors import numbered_cursor, read_numbered_cursor
from allim.hub.views import Page
from allim.scheduler.cron import InvalidCron, InvalidTimezone, cron
from allim.scheduler.jobs import JobKinds
from allim.scheduler.model import ScheduleChange, ScheduleRequest
from allim.scheduler.views import FireView, ScheduleView

SQL = Statements.load("allim.scheduler", "schedules.sql")

MOST_SCHEDULES = 1000
_SCHEDULE, _FIRE = b"s", b"f"
"""The kinds of their cursors."""
_NAMED = ("name", "job", "parameters", "cron", "timezone", "enabled")
_WHEN = frozenset({"cron", "timezone", "enabled"})


class Schedules:
    """The schedules of a database. `wake` is called when one was changed or asked to fire."""

    def __init__(
        self, database: Database, kinds: JobKinds, wake: Callable[[], None] = lambda: None
    ) -> None:
        self._database = database
        self._kinds = kinds
        self._wake = wake

    async def create(self, request: ScheduleRequest) -> ScheduleView:
        """Make a schedule; it begins with the first slot from now on.

        Raises InvalidRequest naming what is wrong, and Conflict for a name that is taken.
        """
        wanted = self._checked(request.model_dump())
        rows = await self._database.fetch(
            SQL["create"], {**_stored(wanted), "limit": MOST_SCHEDULES}
        )
        if not rows:
            if await self._database.fetch(SQL["name_taken"], {"name": request.name}):
                raise _name_taken(request.name)
            raise Conflict("too_many_schedules", f"there are {MOST_SCHEDULES} schedules already")
        self._wake()
        return await self.one(rows[0][0])

    async def one(self, schedule: int) -> ScheduleView:
        """One schedule with its newest fire. Raises NotFound."""
        rows = await self._database.fetch(_composed("one"), {"id": schedule})
        if not rows:
            raise _not_found(schedule)
        return _view(*rows[0])

    async def named(self, name: str) -> int:
        """The id of the schedule of that name. Raises NotFound."""
        rows = await self._database.fetch(SQL["find"], {"name": name})
        if not rows:
            raise NotFound("schedule_not_found", f"there is no schedule {name!r}")
        identity: int = rows[0][0]
        return identity

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[ScheduleView]:
        """A page of schedules, newest first. Raises InvalidCursor."""
        before = read_numbered_cursor(_SCHEDULE, cursor) if cursor else None
        rows = await self._database.fetch(_composed("list"), {"before": before, "limit": limit + 1})
        items = [_view(*row) for row in rows]
        return Page.of(items, limit, lambda last: numbered_cursor(_SCHEDULE, last.id))

    async def change(self, schedule: int, change: ScheduleChange) -> ScheduleView:
        """Change what was given. Raises InvalidRequest, Conflict and NotFound."""
        given = change.given()
        try:
            async with self._database.transaction() as tx:
                before = await self._lock(tx, schedule)
                wanted = self._checked({**before, **given})
                anew = any(before[name] != wanted[name] for name in _WHEN)
                await tx.execute(SQL["change"], {**_stored(wanted), "id": schedule, "anew": anew})
        except UniqueViolation:
            raise _name_taken(str(given["name"])) from None
        self._wake()
        return await self.one(schedule)

    async def remove(self, schedule: int) -> None:
        """Remove a schedule and its record; what it has under way goes on. Raises NotFound."""
        if not await self._database.fetch(SQL["remove"], {"id": schedule}):
            raise _not_found(schedule)

    async def fire(self, schedule: int) -> FireView:
        """Ask for a run now, by whichever scheduler comes first; a paused one runs too.

        Raises Conflict while it runs already, and NotFound.
        """
        async with self._database.transaction() as tx:
            await self._lock(tx, schedule)
            running = await (await tx.execute(SQL["open_fire"], {"id": schedule})).fetchone()
            if running is not None:
                doing = "waits to run" if running[0] == "QUEUED" else "runs"
                due = running[1].astimezone(UTC)
                raise Conflict(
                    "still_running", f"it {doing} already (due {due:%Y-%m-%d %H:%M:%S%z})"
                )
            row = await (await tx.execute(SQL["request"], {"id": schedule})).fetchone()
            assert row is not None
        self._wake()
        rows = await self._database.fetch(_composed("one_fire"), {"id": row[0]})
        if not rows:
            raise _not_found(schedule)
        return FireView.model_validate(rows[0][0])

    async def fires(
        self, schedule: int, *, limit: int = 50, cursor: str | None = None
    ) -> Page[FireView]:
        """A page of a schedule's fires, newest first. Raises InvalidCursor and NotFound."""
        before = read_numbered_cursor(_FIRE, cursor) if cursor else None
        rows = await self._database.fetch(
            _composed("fires"), {"id": schedule, "before": before, "limit": limit + 1}
        )
        if not rows:
            await self.one(schedule)
        items = [FireView.model_validate(row[0]) for row in rows]
        return Page.of(items, limit, lambda last: numbered_cursor(_FIRE, last.id))

    async def _lock(self, tx: Connection, schedule: int) -> dict[str, Any]:
        row = await (await tx.execute(SQL["lock"], {"id": schedule})).fetchone()
        if row is None:
            raise _not_found(schedule)
        return dict(zip(_NAMED, row, strict=True))

    def _checked(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The same with the job's parameters as it stores them; every problem at once."""
        problems: list[FieldProblem] = []
        # One after the other, so that neither hides what is wrong with the other.
        try:
            cron(wanted["cron"], "UTC")
        except InvalidCron as error:
            problems.append(FieldProblem("/cron", "invalid_cron", str(error)))
        try:
            cron("* * * * *", wanted["timezone"])
        except InvalidTimezone as error:
            problems.append(FieldProblem("/timezone", "invalid_timezone", str(error)))
        kind = self._kinds.get(wanted["job"])
        parameters = wanted["parameters"]
        if kind is None:
            known = ", ".join(sorted(self._kinds))
            problems.append(FieldProblem("/job", "unknown_job", f"must be one of {known}"))
        else:
            try:
                parameters = kind.model_validate(parameters).model_dump(
                    mode="json", exclude_none=True
                )
            except ValidationError as error:
                found = invalid_body(error)
                problems += [
                    FieldProblem(f"/parameters{one.place}", one.code, one.message)
                    for one in getattr(found, "problems", ())
                ]
        if problems:
            raise InvalidRequest(problems)
        return {**wanted, "parameters": parameters}


def _stored(wanted: Mapping[str, Any]) -> dict[str, Any]:
    from psycopg.types.json import Jsonb

    return {**wanted, "parameters": Jsonb(wanted["parameters"])}


def _view(
    now: datetime,
    decided_until: datetime,
    id_: int,
    name: str,
    job: str,
    parameters: dict[str, Any],
    expression: str,
    timezone: str,
    enabled: bool,
    created_at: datetime,
    updated_at: datetime,
    last_fire: Any,
) -> ScheduleView:
    upcoming = overdue = None
    if enabled:
        try:
            slots = cron(expression, timezone)
        except (InvalidCron, InvalidTimezone):
            slots = None  # Made where a newer list of time zones is; it cannot fire here.
        if slots is not None:
            undecided = slots.after(decided_until)
            overdue = undecided if undecided is not None and undecided <= now else None
            upcoming = slots.after(now)
    return ScheduleView(
        id=id_,
        name=name,
        job=job,
        parameters=parameters,
        cron=expression,
        timezone=timezone,
        enabled=enabled,
        next_fire_at=upcoming,
        overdue_since=overdue,
        last_fire=last_fire,
        created_at=created_at,
        updated_at=updated_at,
    )


def _composed(name: str) -> LiteralString:
    return SQL[name].replace("{columns}", SQL["columns"]).replace("{fire}", SQL["fire"])


def _not_found(schedule: int) -> NotFound:
    return NotFound("schedule_not_found", f"there is no schedule {schedule}")


def _name_taken(name: str) -> Conflict:
    return Conflict(
        "name_taken",
        f"there is a schedule {name!r} already",
        [FieldProblem("/name", "name_taken", "is taken")],
    )
