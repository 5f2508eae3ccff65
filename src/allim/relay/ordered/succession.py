"""Taking over from relays that ended without a word: what they may still send is kept out first."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Generic

from allim.base.errors import DatabaseUnavailable
from allim.base.tasks import cancel_and_wait
from allim.relay.ordered.box import OrderedBox
from allim.relay.ordered.message import Message
from allim.relay.ordered.publisher import Publisher

log = logging.getLogger("allim.relay.ordered")


class Succession(Generic[Message]):
    """Which ended relays may still send something, and through which publishers.

    A publisher is not used before it keeps out what they may still send; one that can't do so
    now holds up nothing but itself. The box remembers until all publishers have done it, so that
    who takes over from us knows of it too.
    """

    def __init__(
        self, box: OrderedBox[Message], publishers: Mapping[str, Publisher[Message]]
    ) -> None:
        self._box = box
        self._publishers = publishers
        self._ended: frozenset[str] = frozenset()
        self._kept_out: dict[str, set[str]] = defaultdict(set)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._task: asyncio.Task[None] | None = None

    def learn(self, ended: frozenset[str]) -> None:
        """All relays that may still send something; begins to see to it."""
        self._ended = ended
        if ended and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._keep_all_out(ended))

    async def ensure(self, publisher: str) -> None:
        """See to it for one publisher. Raises what that raises where it can't be done now."""
        if self._ended <= self._kept_out[publisher]:
            return
        async with self._locks[publisher]:
            for relay in sorted(self._ended - self._kept_out[publisher]):
                await self._publishers[publisher].fence(relay)
                self._kept_out[publisher].add(relay)

    async def ensure_all(self) -> None:
        """See to it for every publisher; as above."""
        for publisher in self._publishers:
            await self.ensure(publisher)

    async def end(self) -> None:
        """Leave the rest to others."""
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def _keep_all_out(self, ended: Collection[str]) -> None:
        try:
            await self.ensure_all()
            await self._box.fenced(ended)
        except DatabaseUnavailable:
            pass  # it is in the next list again
        except Exception as error:
            # The publishers' boundary; it is in the next list again.
            log.warning("relays that ended are not fenced yet: %s", error)
