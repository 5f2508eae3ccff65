"""Threads for libraries that block, of which a call that hangs can be left behind."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class NoThreadFree(Exception):
    """As many calls hang as there may be threads, or there is no other; nothing was called."""


class AbandonableThreads:
    """Runs blocking calls, each in a thread of its own, at most `size` at once.

    Half of them at most call the same target, so that one that hangs leaves threads to others.
    A thread cannot be stopped: one whose time is over goes on until its library lets go, and keeps
    its place as long. It does not keep the process from ending.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._per_target = max(1, size // 2)
        self._name = name
        self._running: Counter[str] = Counter()

    def running(self, target: str) -> int:
        """Calls of a target whose threads have not ended, those left behind too."""
        return self._running[target]

    async def run(self, target: str, call: Callable[[], Result], *, timeout: float) -> Result:
        """What `call` returns or raises; `timeout` is seconds.

        Raises NoThreadFree where nothing could be called, and TimeoutError where nobody knows
        how the call ended.
        """
        if self._running.total() >= self._size or self._running[target] >= self._per_target:
            raise NoThreadFree
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def finish(result: Result | None, error: Exception | None) -> None:
            self._running[target] -= 1
            if not self._running[target]:
                del self._running[target]
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result: Result | None = None
            error: Exception | None = None
            try:
                result = call()
            except Exception as raised:  # The thread's own boundary: whoever waits is told.
                error = raised
            except BaseException as raised:
                # What ends a thread (SystemExit) must not end the program of whoever waits.
                error = RuntimeError(type(raised).__name__)
            try:
                loop.call_soon_threadsafe(finish, result, error)
            except RuntimeError:
                return  # The loop is closed; nobody waits any more.

        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError:
            raise NoThreadFree from None  # The system gives no more threads.
        self._running[target] += 1
        async with asyncio.timeout(timeout):
            return await done
