"""`allim doctor`."""

from __future__ import annotations

import asyncio
import sys

import typer

from allim.cli.printing import echo
from allim.cli.start import start

MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "wrong": ("✗", "red")}


def doctor() -> None:
    """Check every configured connection; say what is wrong and what to do.

    Exit code 0 when nothing is wrong, else 1. Sends nothing to anybody.
    """
    environment, _ = start(quiet=True)
    from allim.composition.diagnosis.examination import examine
    from allim.composition.diagnosis.findings import Verdict
    from allim.composition.opening import open_store

    async def run() -> int:
        found_wrong = 0
        async for finding in examine(store, environment):
            mark, colour = MARKS[finding.verdict]
            if sys.stdout.encoding.lower().replace("-", "") != "utf8":
                mark = finding.verdict.upper()
            marked = typer.style(mark, fg=colour) + " "
            echo(f"{finding.about:<17} {finding.words}", mark=marked)
            if finding.remedy:
                echo(f"  {'':<17} → {finding.remedy}")
            found_wrong += finding.verdict is Verdict.WRONG
        return found_wrong

    with open_store(environment, migrated=False) as store:
        found_wrong = asyncio.run(run())
    if found_wrong:
        echo()
        echo(f"{found_wrong} wrong")
        raise typer.Exit(1)
    echo()
    echo("nothing is wrong")
