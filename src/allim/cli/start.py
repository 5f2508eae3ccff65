"""What every command begins with: settings that were checked, and a log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from allim.base.logging import LogWriter
    from allim.base.settings import Environment


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
