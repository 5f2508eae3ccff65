"""A pace that the calls of one process keep together, whatever their targets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Pace:
    """Lets `per_second` calls begin, each after the one before it.

    For limits of a whole account, beside the rates of its targets that all relays share.
    """

    def __init__(self, per_second: float, now: Callable[[], float] = time.monotonic) -> None:
        self._gap = 1.0 / per_second
        self._now = now
        self._next = 0.0

    def seconds_to_turn(self, within: float) -> float | None:
        """Take the next turn; seconds until it comes. None, and no turn, if that is longer."""
        now = self._now()
        turn = max(now, self._next)
        if turn - now > within:
            return None
        self._next = turn + self._gap
        return turn - now

    async def turn(self, within: float) -> bool:
        """Wait for the next turn; False at once where it does not come within so many seconds."""
        seconds = self.seconds_to_turn(within)
        if seconds:
            await asyncio.sleep(seconds)
        return seconds is not None
