"""Keeping leases while sends are under way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from allim.base.clock import Clock
from allim.base.errors import DatabaseUnavailable
from allim.relay.box import LeaseKeeper
from allim.relay.work import Work

log = logging.getLogger("allim.relay.heartbeat")


class Heartbeat:
    """Extends the leases of work in flight, from a thread of its own.

    A blocked event loop must not cost leases: the work would run twice. Work is extended
    once it has used a third of its lease. Where a claim turns out to be lost, its deadline is
    set to the past, so no new call is started for it.
    """

    def __init__(self, keeper: LeaseKeeper, *, lease: float, clock: Clock) -> None:
        self._keeper = keeper
        self._lease = lease
        self._clock = clock
        self._in_flight: dict[int, Work[Any]] = {}
        # Two threads forget: without it one could remove what the other just had.
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="allim-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Stop beating; waits for a beat under way, five seconds at most."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._keeper.close()

    def watch(self, works: Iterable[Work[Any]]) -> None:
        """Keep these leases from now on."""
        with self._lock:
            for work in works:
                self._in_flight[work.id] = work

    def forget(self, works: Iterable[Work[Any]]) -> None:
        """These are settled, or given up."""
        with self._lock:
            for work in works:
                # Not what was claimed anew in the meantime.
                if self._in_flight.get(work.id) is work:
                    del self._in_flight[work.id]

    def beat(self) -> None:
        """Extend every lease that has used a third of its time."""
        due_before = self._clock() + self._lease * 2 / 3
        with self._lock:
            watched: Sequence[Work[Any]] = list(self._in_flight.values())
        due = [work for work in watched if work.deadline < due_before]
        if not due:
            return
        asked_at = self._clock()
        try:
            held = self._keeper.extend(due, self._lease)
        except DatabaseUnavailable as error:
            log.warning("leases not extended, trying again: %s", error)
            return
        for work in due:
            work.deadline = asked_at + self._lease if work.id in held else 0.0
            if work.id not in held:
                # Settled meanwhile, or taken over; a settle will tell which.
                self.forget([work])

    def _run(self) -> None:
        while not self._stop.wait(self._lease / 12):
            try:
                self.beat()
            except Exception:
                # The thread's own boundary: leases must be kept whatever one beat met.
                log.exception("a heartbeat failed")
