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
MOST_AT_ONCE = 16
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

    async def run(self, request: SyncRequest) -> SyncResult:
        """Run once, as EnrolmentSync.run does.

        Raises Overloaded where there is no LMS, too much is under way, or the process stops.
        """
        if self._sync is None:
            raise Overloaded("lms_not_set_up", NOT_SET_UP)
        if len(self._running) >= MOST_AT_ONCE:
            raise Overloaded("too_many_runs", f"{MOST_AT_ONCE} runs are under way here already")
        task = asyncio.create_task(self._sync.run(request))
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise Overloaded("stopping", "Allim was stopped, and the run with it") from None

    async def close(self) -> None:
        """Cancel what is under way, and wait until its locks are released."""
        running = list(self._running)
        if not running:
            return
        for task in running:
            task.cancel()
        # Once only, for a while: a second one would cut short what releases the lock.
        await asyncio.wait(running, timeout=END_SECONDS)
        await cancel_and_wait(*running)

    def _ended(self, task: asyncio.Task[SyncResult]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # Its caller may be gone; the run log has it.
