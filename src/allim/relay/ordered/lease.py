"""The lease of an incarnation, kept from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from allim.base.clock import Clock
from allim.base.errors import DatabaseUnavailable
from allim.relay.ordered.box import FenceKeeper

log = logging.getLogger("allim.relay.ordered")

BEATS = 6
"""Beats in the length of one lease."""


class Lease:
    """Holds from before it was asked for until `seconds` after the last beat was asked for.

    A blocked event loop must not cost the lease, and a frozen process must know that it has lost
    it: the clock runs on while nobody beats. `on_lost` is called once, from the thread.
    """

    def __init__(
        self,
        keeper: FenceKeeper,
        *,
        seconds: float,
        asked_at: float,
        clock: Clock,
        on_lost: Callable[[], None],
    ) -> None:
        self._keeper = keeper
        self._seconds = seconds
        self._deadline = asked_at + seconds
        self._lost = False
        self._clock = clock
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="allim-fence", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def holds(self) -> bool:
        """Whether it can't have run out yet. Once it has, it never holds again."""
        return not self._lost and self._clock() < self._deadline

    def lose(self) -> None:
        """It turned out to be lost."""
        self._lost = True

    def stop(self) -> None:
        """Stop beating; waits for a beat under way, five seconds at most."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._keeper.close()

    def _run(self) -> None:
        while self.holds() and not self._stop.wait(self._seconds / BEATS):
            try:
                self._beat()
            except DatabaseUnavailable as error:
                log.warning("the lease was not extended, trying again: %s", error)
            except Exception:
                # The thread's own boundary: the lease must be kept whatever one beat met.
                log.exception("a beat failed")
        if not self._stop.is_set():
            self._on_lost()

    def _beat(self) -> None:
        asked_at = self._clock()
        # Not once it has run out here, even where the store would still extend it: what was
        # refused for that must not be let go a moment later.
        if not self.holds():
            return
        if not self._keeper.beat():
            self.lose()
        elif self.holds():
            self._deadline = asked_at + self._seconds
