"""`allim schedule …`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from allim.base.errors import AllimError, InvalidRequest
from allim.cli.printing import echo
from allim.cli.recording import on_record
from allim.cli.start import run_program, with_database

if TYPE_CHECKING:
    from allim.base.settings import Environment
    from allim.database.pool import Database
    from allim.scheduler.schedules import Schedules
    from allim.scheduler.views import FireView, ScheduleView

app = typer.Typer(
    help="Jobs at cron times: the enrolment sync, the dispatch of its alerts.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Answer = TypeVar("Answer")
Name = Annotated[str, typer.Argument(help="Its name, or its number.")]


class JobName(StrEnum):
    """What can be scheduled."""

    SYNC = "enrolment-sync"
    DISPATCH = "outbox-dispatch"


@app.command()
def add(
    cron: Annotated[str, typer.Argument(help='Five cron fields in quotes, as in "*/10 * * * *".')],
    category: Annotated[
        int | None, typer.Option(help="The category that a sync looks at.", min=1)
    ] = None,
    job: Annotated[JobName, typer.Option(help="What to run.")] = JobName.SYNC,
    name: Annotated[
        str | None, typer.Option(help="What to call it.  [enrolment-sync-CATEGORY]")
    ] = None,
    max_users: Annotated[
        int | None, typer.Option(help="The most users looked at in a course.  [all]", min=1)
    ] = None,
    timezone: Annotated[str, typer.Option(help="Whose clock it goes by.")] = "Asia/Seoul",
) -> None:
    """Run a job at cron times, from its next slot on.

    `allim schedule add "*/10 * * * *" --category 303`
    """
    from allim.scheduler.model import ScheduleRequest

    given = {"category_id": category, "max_users_per_course": max_users}
    parameters = {key: value for key, value in given.items() if value is not None}
    usual = f"{job.value}-{category}" if category is not None else job.value

    async def make(schedules: Schedules) -> ScheduleView:
        return await schedules.create(
            ScheduleRequest.model_validate(
                {
                    "name": usual if name is None else name,
                    "job": job.value,
                    "parameters": parameters,
                    "cron": cron,
                    "timezone": timezone,
                }
            )
        )

    made = _with_schedules(make, "create", usual if name is None else name)
    echo(f"{made.name}: {_next(made)}")
    echo("`allim up` runs it, or `allim schedule run`.", err=True)


@app.command("list")
def list_() -> None:
    """List schedules, when each fires next, and how it went last."""

    async def every(schedules: Schedules) -> list[ScheduleView]:
        found: list[ScheduleView] = []
        page = await schedules.list(limit=250)
        found += page.items
        while page.next:
            page = await schedules.list(limit=250, cursor=page.next)
            found += page.items
        return found

    found = _with_schedules(every)
    if not found:
        echo('no schedules: make one with  allim schedule add "*/10 * * * *" --category 303')
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        echo(f"{one.name:<{width}}  {one.cron:<16} {one.timezone}  {_next(one)}")
        values = ", ".join(f"{key} {value}" for key, value in one.parameters.items())
        echo(f"{'':<{width}}  {one.job}{f' ({values})' if values else ''}")
        last = "has not fired yet" if one.last_fire is None else _line(one.last_fire, one.timezone)
        echo(f"{'':<{width}}  last: {last}")


@app.command()
def fires(
    name: Name, limit: Annotated[int, typer.Option(help="How many.", min=1, max=250)] = 20
) -> None:
    """List when a schedule fired and how it went, newest first."""

    async def found(schedules: Schedules) -> tuple[list[FireView], str]:
        identity = await _identity(schedules, name)
        page = await schedules.fires(identity, limit=limit)
        return page.items, (await schedules.one(identity)).timezone

    items, timezone = _with_schedules(found)
    if not items:
        echo("it has not fired yet")
    for one in items:
        echo(_line(one, timezone))


@app.command()
def pause(name: Name) -> None:
    """Let a schedule fire no more until it is resumed."""
    _enable(name, enabled=False)


@app.command()
def resume(name: Name) -> None:
    """Let a paused schedule fire again, from its next slot on."""
    _enable(name, enabled=True)


@app.command()
def remove(name: Name) -> None:
    """Remove a schedule and the record of its fires."""

    async def gone(schedules: Schedules) -> None:
        await schedules.remove(await _identity(schedules, name))

    _with_schedules(gone, "remove", name)
    echo(f"removed {name}")


@app.command()
def fire(name: Name) -> None:
    """Have a schedule's job run now, by whichever scheduler comes first."""

    async def asked(schedules: Schedules) -> None:
        await schedules.fire(await _identity(schedules, name))

    _with_schedules(asked, "fire", name)
    echo(f"asked for: see  allim schedule fires {name}")


@app.command()
def run() -> None:
    """Run the scheduler alone, in a process of its own (whatever SCHEDULER_ENABLED says).

    Any number of them may run; each slot fires once.
    """
    from allim.composition.running import run_scheduler

    run_program(run_scheduler)


def _enable(name: str, *, enabled: bool) -> None:
    from allim.scheduler.model import ScheduleChange

    async def changed(schedules: Schedules) -> ScheduleView:
        identity = await _identity(schedules, name)
        return await schedules.change(identity, ScheduleChange(enabled=enabled))

    made = _with_schedules(changed, "resume" if enabled else "pause", name)
    echo(f"{made.name}: {_next(made)}")


async def _identity(schedules: Schedules, name: str) -> int:
    try:
        return await schedules.named(name)
    except AllimError:
        if name.isdigit() and len(name) < 19:
            return (await schedules.one(int(name))).id
        raise


def _next(schedule: ScheduleView) -> str:
    if not schedule.enabled:
        return "paused"
    assert schedule.next_fire_at is not None
    upcoming = f"next {_local(schedule.next_fire_at, schedule.timezone)}"
    if schedule.overdue_since is None:
        return upcoming
    overdue = _local(schedule.overdue_since, schedule.timezone)
    return f"{upcoming}; overdue since {overdue}: does `allim up` or `allim schedule run` run?"


def _line(one: FireView, timezone: str) -> str:
    words = [_local(one.due_at, timezone), one.status.value]
    if one.cause == "request":
        words.append("(asked for)")
    if one.started_at is not None and one.finished_at is not None:
        words.append(f"in {(one.finished_at - one.started_at).total_seconds():.1f} s")
    if one.run_id is not None:
        words.append(f"run {one.run_id}")
    if one.error is not None:
        words.append(f"- {one.error}")
    return " ".join(words)


def _local(moment: datetime, timezone: str) -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        moment = moment.astimezone(ZoneInfo(timezone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        timezone = "UTC"
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _with_schedules(
    use: Callable[[Schedules], Awaitable[Answer]], action: str | None = None, name: str = ""
) -> Answer:
    """Open the schedules; what is done to the one of that name is on record as `action`."""
    from pydantic import ValidationError

    from allim.base.validation import invalid_body
    from allim.composition.scheduling import LANE
    from allim.database.wakes import wake_now
    from allim.enrolment.scheduled import JOB_KINDS
    from allim.scheduler.schedules import Schedules

    async def run(database: Database, _: Environment) -> Answer:
        changed: list[bool] = []
        schedules = Schedules(database, JOB_KINDS, lambda: changed.append(True))
        if action is None:
            return await use(schedules)
        answer = await on_record(
            database, f"schedule.{action}", f"schedule {name}", lambda: use(schedules)
        )
        if changed:
            await wake_now(database, {LANE})
        return answer

    try:
        return with_database("allim schedule", run)
    except ValidationError as error:
        raise _as_typed(invalid_body(error)) from None
    except InvalidRequest as error:
        raise _as_typed(error) from None


def _as_typed(error: AllimError) -> AllimError:
    """The same with the names of arguments: nobody typed the JSON that places point into."""
    if not isinstance(error, InvalidRequest):
        return error
    typed = {"category_id": "--category", "max_users_per_course": "--max-users"}
    problems = []
    for problem in error.problems:
        place = problem.place.rpartition("/")[2]
        shown = typed.get(place, place if place in ("cron", "") else f"--{place}")
        unknown = problem.code == "unknown_field"
        message = "is not for this job" if unknown else problem.message
        problems.append(type(problem)(shown or "request", problem.code, message))
    return InvalidRequest(problems)
