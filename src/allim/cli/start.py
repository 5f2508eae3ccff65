"""What commands begin with: settings that were checked, a log, the database, a program to run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from allim.base.logging import LogWriter
    from allim.base.settings import Environment
    from allim.composition.opening import Store
    from allim.database.pool import Database

Answer = TypeVar("Answer")


def start(
    overrides: Mapping[str, str | None] | None = None, *, quiet: bool = False
) -> tuple[Environment, LogWriter]:
    """Read and check every setting, begin to log, and let signals end the command cleanly.

    `overrides` are settings from the command line; None leaves one as it is. `quiet` is for
    commands with an answer: unless ALLIM_LOG_LEVEL says otherwise, only warnings are logged.

    Raises ConfigurationError naming every setting that is unknown or wrong.
    """
    from allim.base.logging import LogSettings, configure_logging
    from allim.base.settings import Environment
    from allim.composition.settings import check
    from allim.composition.stopping import interrupt_on_signals

    environment = Environment.of_process()
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    if quiet and environment.get("ALLIM_LOG_LEVEL") is None:
        given["ALLIM_LOG_LEVEL"] = "WARNING"
    environment = check(environment.replacing(**given))
    writer = configure_logging(environment.read(LogSettings))
    interrupt_on_signals()
    return environment, writer


def run_program(
    program: Callable[[Store, Environment, LogWriter], Coroutine[Any, Any, None]],
    overrides: Mapping[str, str | None] | None = None,
) -> None:
    """Start, and run a program of `composition.running` to its end. Raises what these raise."""
    environment, writer = start(overrides)
    from allim.composition.opening import open_store
    from allim.composition.parts import run

    with open_store(environment) as store:
        run(program(store, environment, writer))


def with_database(name: str, use: Callable[[Database, Environment], Awaitable[Answer]]) -> Answer:
    """Start quietly, and do what a command does with the database; `name` is its sessions' name.

    Raises what `start` raises, and DatabaseUnavailable or SchemaError.
    """
    environment, _ = start(quiet=True)
    from allim.composition.opening import connected, open_store

    with open_store(environment) as store:

        async def run() -> Answer:
            async with connected(store, environment, name) as database:
                return await use(database, environment)

        return asyncio.run(run())
