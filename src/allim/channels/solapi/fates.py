"""Finding out what became of a group, by its id."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from allim.base.clock import Clock
from allim.channels.solapi.answers import GroupStatus, SolapiMessage
from allim.channels.solapi.client import SolapiClient, SolapiFailure, Stage

CALL_SHARE = 0.4
"""Share of a send's time that one call may take, so that time is left to ask what became of it."""
LEAST_SECONDS = 0.05
LOOKS = 4
KEPT = 32

log = structlog.get_logger("allim.channels.solapi")


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a group: its messages where it was sent, None where it never will be."""

    messages: Sequence[SolapiMessage] | None

    def message(self, key: str, to: str | None) -> SolapiMessage | None:
        """One message of a group that was sent; None where it is not in it."""
        for said in self.messages or ():
            if said.delivery_key == key:
                return said
        # Groups hold a number once; a provider that forgets custom fields still tells it.
        unnamed = (m for m in self.messages or () if m.delivery_key is None and m.to == to)
        return next(unnamed, None)


class Fates:
    """Asks for groups. `timeout` is the seconds that one send, or one question, may take in all.

    A group that was not sent is deleted, and only when that is confirmed it is said to be
    harmless: what sends it later (a relay that was thought dead and wakes) then fails.
    """

    def __init__(self, client: SolapiClient, *, timeout: float, clock: Clock) -> None:
        self._client = client
        self._timeout = timeout
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Fate | SolapiFailure]] = OrderedDict()
        self._looking: dict[str, asyncio.Lock] = {}

    async def of(self, group_id: str, deadline: float) -> Fate:
        """What became of a group; asked once for all that ask at the same time.

        Raises SolapiFailure while it cannot be known.
        """
        asked_at = self._clock()
        lock = self._looking.setdefault(group_id, asyncio.Lock())
        try:
            async with lock:
                at, known = self._known.get(group_id, (0.0, None))
                if known is None or at < asked_at:
                    known = await self._look(group_id, deadline)
                    self._known[group_id] = (self._clock(), known)
                    if len(self._known) > KEPT:
                        self._known.popitem(last=False)
        finally:
            if not lock.locked():
                self._looking.pop(group_id, None)
        if isinstance(known, SolapiFailure):
            raise known
        return known

    async def discard(self, group_id: str, deadline: float) -> bool:
        """Delete a group that was not sent; whether that is certain."""
        try:
            await self._client.delete_group(group_id, timeout=self.left(deadline))
        except SolapiFailure as failure:
            log.info("solapi_group_not_deleted", group_id=group_id, reason=failure.code)
            return False
        return True

    def left(self, deadline: float) -> float:
        """The longest that the next call may take."""
        return max(min(self._timeout * CALL_SHARE, deadline - self._clock()), LEAST_SECONDS)

    async def _look(self, group_id: str, deadline: float) -> Fate | SolapiFailure:
        try:
            for _ in range(LOOKS):
                status = await self._client.group(group_id, timeout=self.left(deadline))
                if status is GroupStatus.DELETED:
                    return Fate(None)
                if status is not GroupStatus.PENDING:
                    timeout = self.left(deadline)
                    return Fate(await self._client.messages(group_id, timeout=timeout))
                if await self.discard(group_id, deadline):
                    return Fate(None)
                # Sent by somebody just now, or the deletion's end was not seen: look again.
        except SolapiFailure as failure:
            return failure
        return SolapiFailure(Stage.UNSEEN, "in_doubt", "the group is neither sent nor deleted")
