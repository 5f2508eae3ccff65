"""Runs that somebody asked for over HTTP. Who hangs up does not end the run."""

from __future__ import annotations

import asyncio

from allim.base.errors import Overloaded
from allim.base.tasks import cancel_and_wait
from allim.enrolment.model import SyncRequest, SyncResult
from allim.enrolment.sync import EnrolmentSync

NOT_SET_UP = (
    "no LMS is set up: set LMS_KIND to kvca, moodle or sample, and what it needs"
    " (`allim doctor` says what is missing)"
)
STOPPING = "Allim is being stopped; a run that was under way is FAILED and can be repeated"
MOST_AT_ONCE = 16
STOP_SECONDS = 7.0
"""How long runs may go on when the process is to end; less than its server waits for answers."""
END_SECONDS = 5.0
"""How long runs that are cancelled may take to be written down."""


class SyncCalls:
    """Runs the sync for callers that wait for it.

    A run goes on to its end, on record in the run log, when its caller's patience is shorter;
    it is cancelled only with the process, and then releases its lock.
    """

    def __init__(self, sync: EnrolmentSync | None) -> None:
        self._sync = sync
        self._running: set[asyncio.Task[SyncResult]] = set()
        self._canceled: set[asyncio.Task[SyncResult]] = set()
        self._stopping = False

    async def run(self, request: SyncRequest) -> SyncResult:
        """Run once, as EnrolmentSync.run does.

        Raises Overloaded where there is no LMS, too much is under way, or the process stops.
        """
        task = self._start(request)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise Overloaded("stopping", STOPPING) from None

    async def begin(self, request: SyncRequest, *, patience: float) -> SyncResult | None:
        """The same, but wait `patience` seconds at most: None where the run goes on after that."""
        task = self._start(request)
        await asyncio.wait({task}, timeout=patience)
        return task.result() if task.done() and not task.cancelled() else None

    def _start(self, request: SyncRequest) -> asyncio.Task[SyncResult]:
        if self._sync is None:
            raise Overloaded("lms_not_set_up", NOT_SET_UP)
        if self._stopping:
            raise Overloaded("stopping", STOPPING)
        if len(self._running) >= MOST_AT_ONCE:
            raise Overloaded("too_many_runs", f"{MOST_AT_ONCE} runs are under way here already")
        task = asyncio.create_task(self._sync.run(request))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def stop(self) -> None:
        """Begin no more, and cancel what is still under way in a while."""
        self._stopping = True
        asyncio.get_running_loop().call_later(STOP_SECONDS, self._cancel)

    async def close(self) -> None:
        """Cancel what is under way, and wait until its locks are released."""
        running = list(self._running)
        if not running:
            return
        self._cancel()
        await asyncio.wait(running, timeout=END_SECONDS)
        await cancel_and_wait(*running)

    def _cancel(self) -> None:
        # Each once only: a second time would cut short what releases its lock.
        for task in self._running - self._canceled:
            task.cancel()
        self._canceled |= self._running

    def _ended(self, task: asyncio.Task[SyncResult]) -> None:
        self._running.discard(task)
        self._canceled.discard(task)
        if not task.cancelled():
            task.exception()  # Its caller may be gone; the run log has it.
