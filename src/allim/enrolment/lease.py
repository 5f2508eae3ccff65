"""Keeping a run's lock: renewed at a third of its lease, from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import DatabaseUnavailable
from allim.database.kept_connection import KeptConnection
from allim.database.pool import Database
from allim.database.statements import Statements

SQL = Statements.load("allim.enrolment", "runs.sql")
log = logging.getLogger("allim.enrolment.lease")


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that a run took; `fence` is of this taking alone, `lease` is seconds."""

    job_name: str
    fence: int
    run_id: int
    category_id: int
    lease: float


class LeaseLost(Exception):
    """The lock ran out, or somebody else took it: nothing more may be written."""


class Lease:
    """Renews a lock until it is stopped, or lost: then `on_lost` is called once, in the thread.

    A thread with a connection of its own, since the event loop may be busy with a batch for a
    while, and the pool with the batches of others.
    """

    def __init__(
        self,
        database: Database,
        lock: Lock,
        *,
        on_lost: Callable[[], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.lost = False
        self._connection = KeptConnection(database, "allim lease")
        self._lock = lock
        self._on_lost = on_lost
        self._clock = clock
        self._held_until = clock() + lock.lease
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"allim-lease-{lock.run_id}", daemon=True
        )

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; waits for a renewal under way, five seconds at most. Blocks."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        pause = self._lock.lease / 3
        try:
            while not self._stop.wait(pause):
                pause = self._lock.lease / 3
                try:
                    held = self._renew()
                except DatabaseUnavailable as error:
                    log.warning("the lock is not renewed, trying again: %s", error)
                    held = self._clock() < self._held_until
                    pause = self._lock.lease / 20
                if not held:
                    self.lost = True
                    self._on_lost()
                    return
        except Exception:
            # The thread's own boundary. A lock that nobody renews is one that will be lost.
            log.exception("renewing the lock failed")
            self.lost = True
            self._on_lost()
        finally:
            self._connection.close()

    def _renew(self) -> bool:
        asked_at = self._clock()
        parameters = {
            "job_name": self._lock.job_name,
            "fence": self._lock.fence,
            "lease": self._lock.lease,
        }
        with self._connection.use() as connection:
            row = connection.execute(SQL["renew_lock"], parameters).fetchone()
        if row is not None:
            self._held_until = asked_at + self._lock.lease
        return row is not None
