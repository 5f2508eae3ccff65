"""`allim bench`."""

from __future__ import annotations

from typing import Annotated

import typer


def bench(
    cases: Annotated[
        list[str] | None,
        typer.Argument(
            help="post, bulk, publish, drain, events, events-flat, webhooks, email, wake,"
            " footprint, claim, console, sync, text; all of these when left out. And soak:"
            " processes are killed at random, and every id is looked for; needs pgbouncer."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long soak goes on.")] = 5.0,
) -> None:
    """Measure this machine, as ratios to what it could do.

    Starts real processes on an embedded database of its own; never touches yours. Takes some
    minutes, and wants the machine for itself. Ends with 1 when a wanted figure was missed.
    """
    from allim.base.errors import ConfigurationError

    try:
        from allim.bench.runner import run_cases
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"allim bench needs {error.name}: pip install 'allim[bench]'"
        ) from None
    if not run_cases(cases or [], as_json=as_json, minutes=minutes):
        raise typer.Exit(1)
