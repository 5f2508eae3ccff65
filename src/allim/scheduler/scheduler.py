"""The loop that fires schedules when their slots come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import DatabaseUnavailable
from allim.base.tasks import cancel_and_wait
from allim.scheduler.cron import InvalidCron, InvalidTimezone, cron
from allim.scheduler.fires import KEEP_DAYS, Armed, Fire, FireLedger, FireStatus
from allim.scheduler.jobs import Job
from allim.scheduler.running import FireRun
from allim.scheduler.slots import due_slots

log = logging.getLogger("allim.scheduler")


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """How a scheduler waits and how much it does at once. Times are seconds."""

    poll: float = 5.0
    """How often schedules are read: others make and change them."""
    jobs: int = 4
    """Jobs that one process runs at once; what is due beside them waits, or goes elsewhere."""
    grace: float = 20.0
    """How long jobs under way may take to end at a stop."""
    interrupt: float = 5.0
    """How long one that was interrupted may take to clean up."""
    longest_pause: float = 30.0
    """Between two tries while the database is gone."""
    prune_every: float = 3600.0


class Scheduler:
    """Fires every slot once, beside any number of others on the same database.

    A slot whose schedule still runs is skipped; slots that nobody came to are missed, but for the
    latest of the last ten minutes. What a process that died had under way is taken over within
    the same ten minutes. The database's clock decides.
    """

    def __init__(
        self,
        ledger: FireLedger,
        jobs: Mapping[str, Job],
        *,
        wake: asyncio.Event | None = None,
        limits: SchedulerLimits = SchedulerLimits(),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._wake = wake or asyncio.Event()
        self._limits = limits
        self._clock = clock
        self._stopping = False
        self._running: dict[asyncio.Task[None], FireRun] = {}
        self._next: dict[int, tuple[Armed, datetime | None]] = {}
        self._told: set[str] = set()
        self._prune_at = clock()

    async def run(self) -> None:
        """Fire until `stop`; then let jobs under way end, and interrupt those that do not."""
        log.info("the scheduler runs as %s", self._ledger.worker)
        pause = 0.0
        try:
            while not self._stopping:
                self._wake.clear()
                try:
                    wait = await self.turn()
                    pause = 0.0
                except DatabaseUnavailable as error:
                    if not pause:
                        log.warning("the scheduler waits for the database: %s", error)
                    wait = pause = min(max(pause * 2, 1.0), self._limits.longest_pause)
                except Exception:  # The loop's own boundary: it must outlive whatever this is.
                    log.exception("a turn of the scheduler failed")
                    wait = self._limits.poll
                await self._rest(wait)
            await self._wind_down()
        finally:
            await cancel_and_wait(*self._running)
        log.info("the scheduler has stopped")

    def stop(self) -> None:
        """Fire no more."""
        self._stopping = True
        self._wake.set()

    async def turn(self) -> float:
        """Fire all that is due now; seconds until there may be more."""
        for lost in await self._ledger.give_up():
            log.warning("schedule %s, due %s: %s", lost.schedule, lost.due_at, lost.error)
        if free := self._limits.jobs - len(self._running):
            for fire in await self._ledger.take_over(self._jobs, limit=free):
                self._begin(fire)
        now, schedules = await self._ledger.read()
        read_at = self._clock()
        wait = self._limits.poll
        for armed in schedules:
            slot = self._next_slot(armed)
            if slot is None:
                continue
            if slot <= now:
                await self._fire(armed, now)
            else:
                wait = min(wait, (slot - now).total_seconds())
        self._forget({armed.id for armed in schedules})
        await self._prune()
        return max(wait - (self._clock() - read_at), 0.0)

    def running(self) -> Sequence[FireRun]:
        """What is under way here."""
        return list(self._running.values())

    async def _fire(self, armed: Armed, now: datetime) -> None:
        here = any(run.fire.schedule == armed.name for run in self._running.values())
        if len(self._running) >= self._limits.jobs and not here:
            return
        due = due_slots(
            cron(armed.cron, armed.timezone), decided_until=armed.decided_until, now=now
        )
        claimed = await self._ledger.claim(armed, due, now)
        if isinstance(claimed, Fire):
            self._begin(claimed)
        elif claimed is FireStatus.SKIPPED:
            log.warning("schedule %s: %s skipped, the one before still runs", armed.name, due.fire)
        if claimed is not None and due.missed is not None:
            log.warning("schedule %s, due %s: %s", armed.name, due.missed.first, due.missed)

    def _begin(self, fire: Fire) -> None:
        run = FireRun(fire, self._jobs[fire.job], self._ledger, clock=self._clock)
        task = asyncio.create_task(run.run())
        self._running[task] = run
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a fire could not be run", exc_info=error)
        self._wake.set()

    def _next_slot(self, armed: Armed) -> datetime | None:
        """The first slot that is not decided yet; None where this process cannot run it."""
        if armed.job not in self._jobs:
            self._tell_once(f"schedule {armed.name}: this version has no job {armed.job}")
            return None
        known = self._next.get(armed.id)
        if known is None or known[0] != armed:
            try:
                slot = cron(armed.cron, armed.timezone).after(armed.decided_until)
            except (InvalidCron, InvalidTimezone) as error:
                self._tell_once(f"schedule {armed.name} cannot fire here: it {error}")
                slot = None
            known = self._next[armed.id] = (armed, slot)
        return known[1]

    def _forget(self, ids: set[int]) -> None:
        for gone in self._next.keys() - ids:
            del self._next[gone]

    async def _prune(self) -> None:
        if self._clock() < self._prune_at:
            return
        # One batch a turn, the next turn soon while there is more.
        pruned = await self._ledger.prune()
        if not pruned:
            self._prune_at = self._clock() + self._limits.prune_every
        else:
            log.info("forgot %d fires older than %d days", pruned, KEEP_DAYS)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _wind_down(self) -> None:
        if not self._running:
            return
        log.info("waiting for %d scheduled jobs to end", len(self._running))
        await asyncio.wait(list(self._running), timeout=self._limits.grace)
        for run in self._running.values():
            run.interrupt()
        if self._running:
            await asyncio.wait(list(self._running), timeout=self._limits.interrupt)

    def _tell_once(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            log.error(words)
