"""The connections of a fake server: which stand, and waiting for what happens on them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Connections:
    """Keeps the task of every open connection; `talk` of a server runs in them."""

    def __init__(self) -> None:
        self.opened = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._change = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    async def serve(
        self, writer: asyncio.StreamWriter, talk: Callable[[int], Awaitable[None]]
    ) -> None:
        """Run `talk` (given the connection's number) until it ends or is cut off."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.opened += 1
        try:
            await talk(self.opened)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The caller went away, or we cut it off: either ends this connection.
            pass
        finally:
            # No await from here on: a second cut must not leave this half done.
            writer.transport.abort()
            self._tasks.discard(task)
            self.changed()

    def changed(self) -> None:
        """Let those look again who wait for something."""
        self._change.set()
        self._change = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        while not holds():
            await self._change.wait()

    async def cut_all(self) -> None:
        """Break every connection that stands."""
        for task in tuple(self._tasks):
            task.cancel()
        await self.until(lambda: not self._tasks)
