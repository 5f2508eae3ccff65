"""`allim bench`."""

from __future__ import annotations

from typing import Annotated

import typer


def bench(
    case: Annotated[
        list[str] | None,
        typer.Argument(help="posting, draining, sending, waking, footprint, claiming.  [all]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one figure a line.")] = False,
) -> None:
    """Measure this machine, as ratios to what it could do.

    Runs on an embedded database of its own. Exit code 1 when a wanted figure was missed.
    """
    from allim.base.errors import ConfigurationError

    try:
        from allim.bench.runner import run_cases
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is needed for this: pip install 'allim[bench]'"
        ) from None
    if not run_cases(case or (), as_json=as_json):
        raise typer.Exit(1)
