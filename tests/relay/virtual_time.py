"""An event loop whose time passes at once: a minute of waiting costs nothing.

Where nothing is ready but a timer, the loop's clock jumps to that timer. Only for tests whose
waits are all timers, locks and events of the loop itself.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

LONGEST_RUN_SECONDS = 30 * 24 * 3600.0
REAL_PATIENCE_SECONDS = 60.0


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            ready = super().select(REAL_PATIENCE_SECONDS)
            assert ready, "nothing will ever happen any more"
            return ready
        self.now += max(timeout, 0.0)
        assert self.now < LONGEST_RUN_SECONDS, "waited for something that does not come"
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def in_virtual_time(
    test: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Run an async test on a VirtualLoop."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], bool], *, within: float = 24 * 3600.0) -> None:
    """Wait, in the loop's time, until something is true."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.05)


def loop_clock() -> float:
    """The clock of the running loop."""
    return asyncio.get_running_loop().time()
