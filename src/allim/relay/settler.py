"""Writing what was decided, in batches, until it is written."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic

from allim.base.errors import DatabaseUnavailable
from allim.relay.box import Box
from allim.relay.observer import Observer, Settled
from allim.relay.policy import ChannelPolicy
from allim.relay.settlement import Settlement
from allim.relay.work import Content, Work

log = logging.getLogger("allim.relay.settler")

BATCH = 500
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


class Settler(Generic[Content]):
    """Settles the finished attempts of one lane.

    Whatever has gathered while one batch was being written goes into the next. While the
    database is gone the batch is kept and written again; the claim token says whether it
    still may land.
    """

    def __init__(
        self,
        lane: str,
        box: Box[Content],
        policy: ChannelPolicy[Content] | None,
        observer: Observer,
        done: Callable[[Sequence[Work[Content]]], None],
    ) -> None:
        self._lane = lane
        self._box = box
        self._policy = policy
        self._observer = observer
        self._done = done
        self._waiting: deque[tuple[Settlement[Content], str, float]] = deque()
        self._came = asyncio.Event()
        self._closing = False

    def put(self, settlements: Sequence[Settlement[Content]], target: str, seconds: float) -> None:
        """Have these written; `seconds` is how long their send took."""
        self._waiting.extend((settlement, target, seconds) for settlement in settlements)
        self._came.set()

    def give_up(self, works: Sequence[Work[Content]]) -> None:
        """Nothing can be written about these now: their lease runs out and they are rescued."""
        self._done(works)

    def close(self) -> None:
        """Write what is waiting, then let `run` end."""
        self._closing = True
        self._came.set()

    async def run(self) -> None:
        """Write until closed and empty."""
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._came.clear()
                await self._came.wait()
                continue
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            settlements = [settlement for settlement, _, _ in batch]
            landed = await self._write(settlements)
            self._done([settlement.work for settlement in settlements])
            self._tell(
                [
                    Settled(settlement, target, seconds, settlement.work.id in landed)
                    for settlement, target, seconds in batch
                ]
            )

    def _tell(self, batch: Sequence[Settled]) -> None:
        try:
            self._observer.settled(self._lane, batch)
        except Exception:
            # The observer's boundary (a span processor's bug): a lane that cannot settle would
            # claim until its window is full, and then stand still without a word.
            log.exception("a settle on lane %s could not be told", self._lane)

    async def _write(self, settlements: Sequence[Settlement[Content]]) -> set[int]:
        pause = FIRST_PAUSE_SECONDS
        landed: set[int] = set()
        while True:
            try:
                return landed | await self._box.settle(settlements, self._policy)
            except DatabaseUnavailable as error:
                self._observer.database_lost(self._lane, str(error))
            except Exception:
                # The settler's own boundary (a policy's bug, a row nothing can store): what
                # cannot be written comes back by its lease, and the lane goes on.
                log.exception("a settle of %d on lane %s failed", len(settlements), self._lane)
                if len(settlements) == 1:
                    return landed
                for settlement in settlements:
                    landed |= await self._write([settlement])
                return landed
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
