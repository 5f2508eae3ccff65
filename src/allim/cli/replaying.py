"""`allim replay …`: dead letters sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allim.cli.moments import typed
from allim.cli.printing import echo
from allim.cli.recording import operator_name
from allim.cli.start import with_database

if TYPE_CHECKING:
    from allim.database.pool import Database
    from allim.hub.replays import Replays
    from allim.hub.views import ReplayCountView, ReplayView

app = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")

LOOK_SECONDS = 0.2
SHOWN_GROUPS = 20

Identity = Annotated[int, typer.Argument(help="The number of the replay.", min=1)]


class Status(StrEnum):
    """What can be sent again."""

    DEAD = "DEAD"
    HELD = "HELD"
    SKIPPED = "SKIPPED"


@app.callback()
def replay(
    context: typer.Context,
    status: Annotated[
        list[Status] | None, typer.Option(help="May be given several times.  [DEAD]")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Only this channel.")] = None,
    error_code: Annotated[str | None, typer.Option(help="Only those that failed so.")] = None,
    recipient: Annotated[str | None, typer.Option(help="Only to this recipient.")] = None,
    source: Annotated[str | None, typer.Option(help="Only what this system told.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Created then or later: 2026-01-31T09:00+09:00.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Created before that.")] = None,
    tenant: Annotated[int | None, typer.Option(help="Only this tenant's.", min=1)] = None,
    rate: Annotated[
        float | None, typer.Option(help="The most a second.  [as fast as it goes]", min=0.001)
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with the job.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Send dead letters again, by a filter; shows what it means, asks, and follows it.

    `allim replay --channel SLACK --error-code http_500 --rate 50`

    The job is stored: relays go on with it should this command end.
    """
    if context.invoked_subcommand is not None:
        return
    from allim.base.validation import validated
    from allim.channels.table import CHANNELS
    from allim.hub.channel_names import require_known
    from allim.hub.replays import ReplayRequest

    asked: dict[str, Any] = {
        "channel": channel,
        "error_code": error_code,
        "recipient": recipient,
        "source": source,
        "type": type_,
        "from": typed(since),
        "to": typed(until),
    }
    wanted = {name: value for name, value in asked.items() if value is not None}
    if status:
        wanted["status"] = [one.value for one in status]

    async def run(replays: Replays, database: Database) -> None:
        request = validated(
            ReplayRequest,
            {"filter": wanted, "rate_per_second": rate, "reason": reason, "tenant_id": tenant},
        )
        require_known(request.filter.channel, {entry.name for entry in CHANNELS}, "--channel")
        counted = await replays.count(request.filter, tenant)
        _show_count(counted)
        if dry_run or not counted.total:
            return
        if not yes and not typer.confirm(f"Send {counted.total} again?", err=True):
            raise typer.Exit(1)
        job = await replays.create(request, tenant=tenant, by=operator_name())
        echo(f"replay {job.id}", err=True)
        _show(await _follow(replays, database, job))

    _with_replays(run)


@app.command("list")
def list_() -> None:
    """The last replays, newest first."""

    async def run(replays: Replays, _database: Database) -> None:
        jobs = (await replays.list(limit=50)).items
        if not jobs:
            echo("no replays yet")
        for job in jobs:
            _show(job)

    _with_replays(run)


@app.command()
def pause(identity: Identity) -> None:
    """Let no further step begin."""
    _with_replays(
        lambda replays, _: _moved(replays.pause(identity, tenant=None, by=operator_name()))
    )


@app.command()
def resume(identity: Identity) -> None:
    """Go on where it was paused; relays do."""
    _with_replays(
        lambda replays, _: _moved(replays.resume(identity, tenant=None, by=operator_name()))
    )


@app.command()
def cancel(identity: Identity) -> None:
    """End it where it is; what was sent again stays so."""
    _with_replays(
        lambda replays, _: _moved(replays.cancel(identity, tenant=None, by=operator_name()))
    )


async def _moved(moving: Awaitable[ReplayView]) -> None:
    _show(await moving)


async def _follow(replays: Replays, database: Database, job: ReplayView) -> ReplayView:
    """Do its steps here too, so that it also goes on where no relay runs, and show how far."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from allim.base.tasks import cancel_and_wait
    from allim.composition.ways import Wakes
    from allim.database.wakes import Waker
    from allim.hub.replaying import ReplayRunner
    from allim.relay.wake import WakeSignal

    async with Waker(database) as waker:
        steps = asyncio.create_task(ReplayRunner(database, WakeSignal(), Wakes(waker)).run())
        try:
            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=Console(stderr=True)) as bar:
                shown = bar.add_task("", total=job.total)
                while job.status == "RUNNING":
                    await asyncio.sleep(LOOK_SECONDS)
                    job = await replays.one(job.id)
                    bar.update(shown, completed=job.replayed + job.skipped)
        finally:
            await cancel_and_wait(steps)
    return job


def _show_count(counted: ReplayCountView) -> None:
    if not counted.total:
        echo("nothing fits")
    for group in counted.groups[:SHOWN_GROUPS]:
        echo(f"{group.count:>8,}  {group.channel:<10} {group.status:<8} {group.error_code or '-'}")
    if len(counted.groups) > SHOWN_GROUPS:
        echo(f"{'…':>8}  and {len(counted.groups) - SHOWN_GROUPS} more groups")


def _show(job: ReplayView) -> None:
    skipped = f", {job.skipped:,} passed over" if job.skipped else ""
    reason = f"  ({job.reason})" if job.reason else ""
    echo(
        f"replay {job.id}  {job.status:<9}  {job.replayed:,} of {job.total:,} sent again{skipped}"
        f"  by {job.requested_by}{reason}"
    )


def _with_replays(use: Callable[[Replays, Database], Awaitable[None]]) -> None:
    from allim.hub.replays import Replays

    with_database("allim replay", lambda database, _: use(Replays(database), database))
