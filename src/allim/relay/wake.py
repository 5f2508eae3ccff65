"""Waking lanes that wait for work."""

from __future__ import annotations

import asyncio
from collections.abc import Collection


class WakeSignal:
    """Tells waiting lanes of one process that work has come. Used from the event loop only."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}
        self.listening = False
        """Whether wakes from other processes arrive too; if not, lanes poll more often."""

    def event(self, lane: str) -> asyncio.Event:
        """The event that is set when a lane has work."""
        return self._events.setdefault(lane, asyncio.Event())

    def wake(self, lanes: Collection[str]) -> None:
        """Wake lanes; ones that nobody waits for are ignored."""
        for lane in lanes:
            if event := self._events.get(lane):
                event.set()

    def wake_all(self) -> None:
        """Wake every lane: something may have been missed."""
        self.wake(list(self._events))
