"""`allim stress`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from allim.base.errors import ConfigurationError
from allim.cli.printing import echo
from allim.cli.start import start

if TYPE_CHECKING:
    from allim.base.settings import Environment
    from allim.database.pool import Database
    from allim.messaging.job import MessageJob
    from allim.messaging.stress import Standing

LOOK_SECONDS = 0.25
STOP_SECONDS = 30.0
NAMED = 10


def stress(
    count: Annotated[int, typer.Option(help="How many messages.", min=1, max=100_000)] = 100,
    run_worker: Annotated[
        bool,
        typer.Option("--run-worker", help="Start a worker that only prints, and wait for it."),
    ] = False,
    straight: Annotated[
        bool, typer.Option("--straight", help="Straight into the box, without SQS.")
    ] = False,
    patience: Annotated[
        float, typer.Option(help="Give up after so many seconds.", min=1.0)
    ] = 600.0,
) -> None:
    """Queue many messages, wait until all are sent, and look for every single one.

    Sends nothing to anybody: a worker of its own is a mock, and without one this refuses to run
    where Solapi would really be called. Ends with 1 where a message was lost or doubled.
    """
    environment, _ = start({"SOLAPI_MOCK": "true"} if run_worker else None, quiet=True)
    from allim.channels.solapi.settings import SolapiSettings
    from allim.composition.opening import connected, open_store

    if environment.read(SolapiSettings).mode == "live":
        raise ConfigurationError(
            "these messages would really be sent, and paid for: set SOLAPI_MOCK=true here and for"
            " the worker, or use --run-worker"
        )
    with open_store(environment) as store:

        async def run() -> bool:
            async with connected(store, environment, "allim stress") as database:
                return await _stress(
                    database,
                    environment,
                    count=count,
                    run_worker=run_worker,
                    straight=straight,
                    patience=patience,
                )

        good = asyncio.run(run())
    if not good:
        raise typer.Exit(1)


async def _stress(
    database: Database,
    environment: Environment,
    *,
    count: int,
    run_worker: bool,
    straight: bool,
    patience: float,
) -> bool:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from allim.messaging.stress import standing, stress_jobs

    jobs = stress_jobs(count)
    began = time.monotonic()
    await _queue(database, environment, jobs, straight=straight)
    async with _worker(straight=straight) if run_worker else contextlib.nullcontext() as worker:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        ) as progress:
            task = progress.add_task("sent", total=count)
            while True:
                now = await standing(database, jobs)
                progress.update(task, completed=now.ended)
                if now.ended >= count or time.monotonic() - began > patience:
                    break
                if worker is not None and worker.returncode is not None:
                    raise ConfigurationError(f"the worker ended with {worker.returncode}")
                await asyncio.sleep(LOOK_SECONDS)
    return _tell(now, time.monotonic() - began, started_worker=run_worker)


async def _queue(
    database: Database, environment: Environment, jobs: Sequence[MessageJob], *, straight: bool
) -> None:
    from allim.messaging.enqueue import enqueue_jobs
    from allim.messaging.queue import QueueError
    from allim.messaging.settings import QueueSettings

    if not straight:
        try:
            await enqueue_jobs(environment.read(QueueSettings), list(jobs))
        except QueueError as error:
            raise ConfigurationError(f"{error} (or try --straight, without SQS)") from error
        return
    from allim.composition.ways import open_channels
    from allim.messaging.intake import Intake
    from allim.messaging.stress import store_jobs

    async with open_channels(database, environment) as ways:
        await store_jobs(Intake(database, ways.channels, environment), jobs)


@contextlib.asynccontextmanager
async def _worker(*, straight: bool) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker that only prints, in a process of its own; stopped at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "allim",
        *(["relay"] if straight else ["messaging-worker"]),
        env={**os.environ, "SOLAPI_MOCK": "true", "ALLIM_LOG_LEVEL": "WARNING"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def _tell(now: Standing, seconds: float, *, started_worker: bool) -> bool:
    from rich.console import Console
    from rich.table import Table

    unfinished = now.count - now.ended
    good = not (now.lost or now.doubled or unfinished)
    title = "stress run, the worker's start included" if started_worker else "stress run"
    table = Table(title=title, show_header=False)
    rows: list[tuple[str, str]] = [
        ("messages", f"{now.count:,}"),
        *((status, f"{times:,}") for status, times in sorted(now.states.items())),
        ("not finished", f"{unfinished:,}"),
        ("lost", f"{len(now.lost):,}"),
        ("doubled", f"{len(now.doubled):,}"),
        ("throughput", f"{now.per_second:,.0f} messages/s"),
        ("box to provider p50", f"{now.latency(0.5) * 1000:,.0f} ms"),
        ("box to provider p95", f"{now.latency(0.95) * 1000:,.0f} ms"),
        ("box to provider max", f"{now.latency(1.0) * 1000:,.0f} ms"),
        ("all of it took", f"{seconds:,.1f} s"),
        ("verdict", "nothing lost, nothing doubled" if good else "see above"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table)
    for word, jobs in (("lost", now.lost), ("doubled", now.doubled)):
        for job in jobs[:NAMED]:
            echo(f"{word}: {job}")
    return good
