"""A pace that the calls of one process keep together, whatever their targets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Pace:
    """Lets `per_second` calls begin, each after the one before it.

    For limits of a whole account, beside the rates of its targets that all relays share. Few
    may wait at a time: who calls is bounded by the channel's concurrency.
    """

    def __init__(self, per_second: float, now: Callable[[], float] = time.monotonic) -> None:
        self._gap = 1.0 / per_second
        self._now = now
        self._next = 0.0

    def seconds_to_turn(self) -> float:
        """Take the next turn; seconds until it comes."""
        now = self._now()
        turn = max(now, self._next)
        self._next = turn + self._gap
        return turn - now

    async def turn(self) -> None:
        """Wait for the next turn."""
        if (seconds := self.seconds_to_turn()) > 0:
            await asyncio.sleep(seconds)
