"""One time limit for many calls, kept by one timer."""

from __future__ import annotations

import asyncio
from types import TracebackType


class TimeLimit:
    """Cancels calls that take longer than `seconds`, each in the task that makes it.

    What `asyncio.timeout` does, for calls that all have the same limit: they run out in the
    order in which they began, so one timer is enough, and a call that ends while others are
    under way leaves it alone.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls: dict[LimitedCall, None] = {}
        """Under way, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def call(self) -> LimitedCall:
        """A context for one call; leaving it raises TimeoutError where the time was over."""
        return LimitedCall(self)

    def begin(self, call: LimitedCall) -> float:
        """A call is under way; by when it has to end."""
        loop = asyncio.get_running_loop()
        ends_by = loop.time() + self._seconds
        self._calls[call] = None
        if self._timer is None:
            self._timer = loop.call_at(ends_by, self._on_time)
        return ends_by

    def end(self, call: LimitedCall) -> None:
        """A call has ended, in time or not."""
        del self._calls[call]
        if not self._calls and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for call in self._calls:
            if call.ends_by > now:
                self._timer = loop.call_at(call.ends_by, self._on_time)
                return
            call.run_out()


class LimitedCall:
    """One call within a time limit; see `TimeLimit.call`."""

    __slots__ = ("_cancelling", "_has_run_out", "_limit", "_task", "ends_by")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self._has_run_out = False

    def run_out(self) -> None:
        """Its time is over."""
        if not self._has_run_out:
            self._has_run_out = True
            self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self.ends_by = self._limit.begin(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._limit.end(self)
        # Somebody else may have cancelled the task too; that goes on.
        if (
            self._has_run_out
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error
