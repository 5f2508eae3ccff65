"""How long, and how often, an LMS is waited for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from allim.base.clock import SYSTEM_CLOCK, Clock

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How calls are made. Times are seconds.

    `timeout` is for one wait: until an answer begins, until more of it comes. `budget` is for
    one request: all its waits, repeats and what a Retry-After asks for. `concurrency` is how
    many calls of one run wait for an answer at once.
    """

    timeout: float = 30.0
    retries: int = 3
    concurrency: int = 8
    budget: float = 90.0
    clock: Clock = SYSTEM_CLOCK
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    jitter: Callable[[], float] = field(default=lambda: random.uniform(0.8, 1.2))  # noqa: S311

    def wait_before(self, repeat: int, retry_after: float | None) -> float:
        """Seconds before the `repeat`-th repeat (the first is 0): as asked, at least our own."""
        ours = min(FIRST_WAIT_SECONDS * 2.0**repeat, LONGEST_WAIT_SECONDS) * self.jitter()
        return max(ours, retry_after or 0.0)


class Patience:
    """What is left of one request's budget.

    Only waiting for the LMS counts: not what a caller does between two rows of a listing.
    """

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self.left = manners.budget

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Wait in here: TimeoutError after the timeout, or when the budget is spent."""
        began = self._manners.clock()
        try:
            async with asyncio.timeout(min(self._manners.timeout, max(self.left, 0.0))):
                yield
        finally:
            self.left -= self._manners.clock() - began

    async def pause(self, seconds: float) -> bool:
        """Sleep before a repeat; False, at once, where too little would be left after it."""
        if seconds >= self.left:
            return False
        await self._manners.sleep(seconds)
        self.left -= seconds
        return True
