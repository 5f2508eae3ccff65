"""`allim demo`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    home: Annotated[Path, typer.Option(help="Where the demo's own database is kept.")] = Path(
        ".allim/demo"
    ),
) -> None:
    """Start everything, send notifications, sync, text and publish, and tell what happened.

    Calls nobody outside this machine and touches no other database. On a terminal it then
    stays up until Ctrl-C; otherwise it ends, with exit code 1 where something went wrong.
    """
    from allim.channels.registry import print_line_on_stdout as say
    from allim.composition.stopping import interrupt_on_signals, stopping
    from allim.demo.stage import stage
    from allim.demo.telling import tell

    async def run() -> bool:
        stop = asyncio.Event()
        with stopping(stop.set):
            story = asyncio.create_task(play(stop))
            ending = asyncio.create_task(stop.wait())
            await asyncio.wait({story, ending}, return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            if not story.done():
                story.cancel()
            await asyncio.gather(story, ending, return_exceptions=True)
            return True if story.cancelled() else story.result()

    async def play(stop: asyncio.Event) -> bool:
        say("Allim demo: starting …")
        async with stage(home) as set_up:
            good = await tell(set_up, say)
            if sys.stdout.isatty() and sys.stdin.isatty():
                say("\nStill running. Ctrl-C ends it.")
                ended = asyncio.create_task(set_up.process.wait())
                asked = asyncio.create_task(stop.wait())
                await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
                for task in (ended, asked):
                    task.cancel()
            return good

    interrupt_on_signals()
    if not asyncio.run(run()):
        raise typer.Exit(1)
