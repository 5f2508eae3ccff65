"""One fire while it runs: its job, its lease, and what is recorded of its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import AllimError, DatabaseUnavailable
from allim.base.tasks import cancel_and_wait
from allim.scheduler.fires import Fire, FireLedger, FireStatus
from allim.scheduler.jobs import Job, JobEnded

log = logging.getLogger("allim.scheduler")

JOB_SECONDS = 6 * 3600.0
"""The longest that a job may take."""
AGAIN_SECONDS = 1.0
BUSY_SECONDS = 60.0
"""After what a fire that was taken over tries again, while the lock of the dead run holds."""


class FireRun:
    """Runs one fire to its end. Nothing that goes wrong with it is raised."""

    def __init__(
        self, fire: Fire, job: Job, ledger: FireLedger, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.fire = fire
        self._job = job
        self._ledger = ledger
        self._clock = clock
        self._task: asyncio.Task[JobEnded] | None = None
        self._held_until = clock() + ledger.lease
        self._interrupted = False
        self._lost = False

    async def run(self) -> None:
        """Run the job; its lease is kept meanwhile, its end is recorded."""
        fire = self.fire
        log.info(
            "schedule %s: %s for %s begins%s",
            fire.schedule,
            fire.job,
            fire.due_at,
            "" if fire.attempts == 1 else f" again ({fire.attempts})",
        )
        began = self._clock()
        self._task = asyncio.create_task(_call(self._job, fire))
        if self._interrupted:
            self._task.cancel()
        keeper = asyncio.create_task(self._keep_lease(self._task))
        try:
            done, _ = await asyncio.wait({self._task}, timeout=JOB_SECONDS)
            await cancel_and_wait(keeper, *(() if done else (self._task,)))
            await self._until_recorded(lambda: self._record(self._task, timely=bool(done)))
        finally:
            await cancel_and_wait(keeper, self._task)
        log.info("schedule %s: ended after %.1f s", fire.schedule, self._clock() - began)

    def interrupt(self) -> None:
        """End the job now, cleanly; another process may take the fire over."""
        self._interrupted = True
        if self._task is not None:
            self._task.cancel()

    async def _keep_lease(self, task: asyncio.Task[JobEnded]) -> None:
        while True:
            await asyncio.sleep(self._ledger.lease / 3)
            asked = self._clock()
            try:
                held = await self._ledger.renew(self.fire)
            except DatabaseUnavailable:
                held = self._clock() < self._held_until
            else:
                self._held_until = asked + self._ledger.lease
            if not held:
                self._lost = True
                task.cancel()
                return

    async def _record(self, task: asyncio.Task[JobEnded] | None, *, timely: bool) -> None:
        assert task is not None
        if self._lost:
            log.warning("schedule %s: another process took it over", self.fire.schedule)
        elif not timely:
            await self._settle(JobEnded(error=f"it took longer than {JOB_SECONDS / 3600:g} hours"))
        elif task.cancelled():
            await self._ledger.give_back(self.fire, "interrupted: the scheduler was stopped")
        elif (error := task.exception()) is not None:
            await self._settle(JobEnded(error=_said(error)))
        else:
            await self._settle(task.result())

    async def _settle(self, ended: JobEnded) -> None:
        fire = self.fire
        if ended.busy and fire.attempts > 1:
            # The lock is most likely that of the run which died: it runs out by itself.
            await self._ledger.put_off(fire, ended.error or "busy", seconds=BUSY_SECONDS)
            return
        status = FireStatus.SUCCESS if ended.error is None else FireStatus.FAILED
        if not await self._ledger.settle(fire, status, error=ended.error, run_id=ended.run_id):
            log.warning("schedule %s: its end is not recorded, it was taken over", fire.schedule)
        elif ended.error is not None:
            log.warning("schedule %s: %s failed: %s", fire.schedule, fire.job, ended.error)

    async def _until_recorded(self, record: Callable[[], Awaitable[None]]) -> None:
        """Try until the lease is over; then whoever takes the fire over records its end."""
        while True:
            try:
                await record()
                return
            except DatabaseUnavailable as error:
                if self._clock() >= self._held_until:
                    log.warning(
                        "schedule %s: its end is not recorded: %s", self.fire.schedule, error
                    )
                    return
                await asyncio.sleep(AGAIN_SECONDS)


async def _call(job: Job, fire: Fire) -> JobEnded:
    return await job(fire.parameters)


def _said(error: BaseException) -> str:
    if isinstance(error, AllimError):
        return str(error)
    # The boundary of whatever a job may raise: told to the log, and named on the record.
    log.error("a scheduled job failed unexpectedly", exc_info=error)
    return f"unexpected error: {type(error).__name__}; the log says more"
