"""The ordered relay: one incarnation after the other, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
from typing import Generic

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import DatabaseUnavailable
from allim.relay.ordered.box import OrderedBox
from allim.relay.ordered.incarnation import Incarnation
from allim.relay.ordered.limits import OrderedLimits
from allim.relay.ordered.message import Message
from allim.relay.ordered.observer import OrderedObserver, OrderedSilence
from allim.relay.ordered.turns import Ways
from allim.relay.relay import worker_name
from allim.relay.wake import WakeSignal

log = logging.getLogger("allim.relay.ordered")

LANE = "events"
"""The lane that wakes name."""


class OrderedRelay(Generic[Message]):
    """Publishes what one box holds, each line in order.

    Any number of relays may run on one box; nothing but the box coordinates them.
    """

    def __init__(
        self,
        box: OrderedBox[Message],
        ways: Ways[Message],
        *,
        wake: WakeSignal,
        limits: OrderedLimits | None = None,
        observer: OrderedObserver | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._box = box
        self._ways = ways
        self._wake = wake
        self._limits = limits or OrderedLimits()
        self._observer = observer or OrderedSilence()
        self._clock = clock
        self._life: Incarnation[Message] | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Run until `stop` is called and what is in flight has ended, or the grace is over."""
        while not self._stopping.is_set():
            life = self._life = Incarnation(
                worker_name(),
                self._box,
                self._ways,
                limits=self._limits,
                woken=self._wake.event(LANE),
                listening=lambda: self._wake.listening,
                observer=self._observer,
                clock=self._clock,
            )
            log.info("relay %s takes events", life.name)
            try:
                await life.run()
                log.info("relay %s has stopped", life.name)
            except DatabaseUnavailable as error:
                self._observer.database_lost(str(error))
            except Exception:
                # A life's own boundary: whatever it met, the next one reads from the bottom.
                log.exception("relay %s failed", life.name)
            await self._rest()

    def stop(self) -> None:
        """Read no more, end what is in flight, then let `run` return."""
        self._stopping.set()
        if self._life is not None:
            self._life.stop()

    async def _rest(self) -> None:
        """Not at once: what ended this life may take a moment to pass."""
        try:
            async with asyncio.timeout(self._limits.pause):
                await self._stopping.wait()
        except TimeoutError:
            pass
