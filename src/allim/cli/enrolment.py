"""`allim sync`: one run of the enrolment sync from the shell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from allim.base.errors import ConfigurationError
from allim.cli.printing import echo, echo_lines
from allim.cli.start import start

if TYPE_CHECKING:
    from allim.base.logging import LogWriter
    from allim.base.settings import Environment
    from allim.composition.opening import Store
    from allim.enrolment.model import OnProgress, Progress, Summary, SyncRequest, SyncResult

NAME_LENGTH = 40
LINES = 20
"""The most lines of progress, where nobody watches."""


class Trigger(StrEnum):
    """Who asks, as it stands in run_log."""

    MANUAL = "MANUAL"
    SCHEDULER = "SCHEDULER"
    RETRY = "RETRY"


def sync(
    category: Annotated[int, typer.Option(help="The category (term) to look at.", min=1)],
    trigger: Annotated[
        Trigger, typer.Option(help="Kept in run_log.", case_sensitive=False)
    ] = Trigger.MANUAL,
    max_users: Annotated[
        int | None,
        typer.Option(help="The most users looked at in a course.  [all]", min=1, max=1_000_000),
    ] = None,
) -> None:
    """Look at a category of the LMS now, and tell what changed.

    `allim sync --category 303`

    Ends with 0 where the run succeeded and with 1 where it failed, or another one is under way.
    Alerts go out by whichever relay runs (`allim up`, `allim relay`).
    """
    environment, writer = start(quiet=True)
    from allim.composition.opening import open_store
    from allim.enrolment.model import MAX_CATEGORY, LockActive, SyncRequest, TriggerType

    if category > MAX_CATEGORY:
        raise typer.BadParameter(f"must be {MAX_CATEGORY} at most", param_hint="'--category'")
    request = SyncRequest(
        category_id=category,
        trigger_type=TriggerType(trigger.value),
        max_users_per_course=max_users,
    )
    with open_store(environment) as store:
        try:
            result = asyncio.run(_run(store, environment, writer, request))
        except LockActive as locked:
            _fail(f"{locked} - run {locked.run_id} records that it was refused")
    if result is None:
        sys.stderr.write("allim: interrupted: the run is FAILED, its lock is released\n")
        raise typer.Exit(130)
    _show(result.summary)
    if not result.ok:
        _fail(f"run {result.run_id} failed: {result.error}")
    echo(f"run {result.run_id}: SUCCESS")
    if result.warning is not None:
        echo_lines(f"allim: {result.warning}", err=True)


async def _run(
    store: Store, environment: Environment, writer: LogWriter, request: SyncRequest
) -> SyncResult | None:
    """The result; None where a signal interrupted it."""
    from allim.composition.opening import connected
    from allim.composition.stopping import stopping
    from allim.composition.syncing import open_sync
    from allim.composition.ways import Wakes, open_channels
    from allim.database.wakes import Waker
    from allim.enrolment.calls import NOT_SET_UP

    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected(store, environment, "allim sync"))
        wakes = Wakes(await stack.enter_async_context(Waker(database)))
        ways = await stack.enter_async_context(open_channels(database, environment))
        service = await stack.enter_async_context(
            open_sync(database, ways.channels, environment, on_commit=wakes)
        )
        if service is None:
            raise ConfigurationError(NOT_SET_UP)
        with _progress(writer) as on_progress:
            work = asyncio.create_task(service.run(request, on_progress=on_progress))

            def interrupt() -> None:
                work.cancel()

            with stopping(interrupt):
                await asyncio.wait({work})
        return None if work.cancelled() else work.result()


@contextmanager
def _progress(writer: LogWriter) -> Iterator[OnProgress]:
    """A bar where somebody watches, else now and then a line."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    with Bar(
        # An LMS may call a course what it likes, also what would be markup.
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("courses, {task.fields[rows]} enrolments"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("asking the LMS", total=None, rows=0)

        def show(progress: Progress) -> None:
            bar.update(
                task,
                description=(progress.course or "reading")[:NAME_LENGTH],
                total=progress.courses or None,
                completed=progress.courses_done,
                rows=progress.rows,
            )

        # While a bar is shown, sys.stderr is what puts lines above it.
        with writer.through(sys.stderr):
            yield show


class _Lines:
    """Tells of every twentieth part of the courses."""

    def __init__(self) -> None:
        self._told = -1

    def __call__(self, progress: Progress) -> None:
        if not progress.courses:
            return
        part = progress.courses_done * LINES // progress.courses
        if part == self._told:
            return
        self._told = part
        sys.stderr.write(
            f"run {progress.run_id}: {progress.courses_done} of {progress.courses} courses,"
            f" {progress.rows} enrolments\n"
        )


def _show(summary: Summary) -> None:
    counts = summary.model_dump()
    if not sys.stdout.isatty():
        for name, count in counts.items():
            echo(f"{name} {count}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, count in counts.items():
        wanted = count and name not in ("failed_courses", "failed_details", "truncated_courses")
        style = "bold" if wanted else "red bold" if count else "dim"
        table.add_row(name.replace("_", " "), f"{count:,}", style=style)
    Console().print(table)


def _fail(reason: str) -> None:
    echo_lines(f"allim: {reason}", err=True)
    raise typer.Exit(1)
