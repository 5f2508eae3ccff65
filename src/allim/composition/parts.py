"""Parts of a program, and running them together."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from allim.composition.stopping import stopping


@dataclass(frozen=True, slots=True)
class Part:
    """What runs until it is asked to stop, and then ends in good order."""

    run: Callable[[], Awaitable[None]]
    stop: Callable[[], None]


async def together(*parts: Part) -> None:
    """Run parts until one ends or a signal comes; then stop all, and wait for them."""

    def stop() -> None:
        for part in parts:
            part.stop()

    # What was loaded until now stays: a full collection need not walk through all of it, with
    # every send waiting.
    gc.collect()
    gc.freeze()
    tasks = [asyncio.ensure_future(part.run()) for part in parts]
    with stopping(stop):
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            stop()
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=2.0)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()


def run(program: Coroutine[Any, Any, None]) -> None:
    """Run a program to its end on the fast event loop."""
    import uvloop

    uvloop.run(program)
