"""Writing down what this process did, and that it is alive, every few seconds."""

from __future__ import annotations

import asyncio
import logging
from typing import Self

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import DatabaseUnavailable
from allim.base.tasks import cancel_and_wait
from allim.database.pool import Database
from allim.hub.rollups import Rollups
from allim.relay.tally import Tally

log = logging.getLogger("allim")

WRITE_SECONDS = 5.0
COUNT_SECONDS = 20.0
KEEP_SECONDS = 600.0
FAILED_SECONDS = 60.0
LAST_SECONDS = 3.0


class Recorder:
    """Writes the tally of one process under its worker's name.

    A process that is killed takes with it what it did since the last write: five seconds.
    """

    def __init__(
        self, database: Database, tally: Tally, worker: str, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._rollups = Rollups(database)
        self._tally = tally
        self._worker = worker
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._count_at = clock()
        self._keep_at = clock() + COUNT_SECONDS

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self.write()
                if self._tally.lanes:
                    await self._rollups.leave(self._worker)
        except (DatabaseUnavailable, TimeoutError):
            log.info("what was done in the last seconds could not be written down")
        except Exception:
            # As in the task: nor must it end otherwise for them.
            log.exception("what was done could not be written down")

    async def write(self) -> None:
        """Write what was done since the last time, and beat. Raises DatabaseUnavailable."""
        tally = self._tally
        taken = tally.take()
        now = None
        try:
            if taken:
                now = await self._rollups.write(self._worker, taken)
        except BaseException:
            tally.put_back(taken)
            raise
        if tally.lanes:
            now = await self._rollups.beat(
                self._worker, sorted(tally.lanes), slots=tally.slots, broken=tally.broken
            )
        if now is not None:
            tally.align(now)

    async def _run(self) -> None:
        while True:
            pause = WRITE_SECONDS
            try:
                await self.write()
                await self._chores()
            except DatabaseUnavailable:
                pass  # The relays say so; what was taken is written the next time.
            except Exception:
                # The recorder's own boundary: a process must not end over its figures.
                log.exception("what was done could not be written down")
                pause = FAILED_SECONDS
            await asyncio.sleep(pause)

    async def _chores(self) -> None:
        if not self._tally.lanes:
            return
        now = self._clock()
        if now >= self._count_at:
            self._count_at = now + COUNT_SECONDS
            await self._rollups.count_created()
        if now >= self._keep_at:
            self._keep_at = now + KEEP_SECONDS
            await self._rollups.keep()
