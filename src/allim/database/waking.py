"""Waking relays from any program: a thread that tells them, after a commit, that there is work.

Relays look by themselves every so often; this makes it milliseconds. A program opens it once
(`waking`); sessions of SQLAlchemy and Django's connections then wake relays by themselves, and
whoever writes with a bare driver calls `wake()` after its commit. Without it `wake()` does
nothing, at no cost.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

log = logging.getLogger("allim.database.waking")

EVENTS: Final = "events"
"""The lane of events; deliveries have lanes by the names of their channels."""
CLOSE_SECONDS = 2.0


class ThreadedWaker:
    """Sends wakes from a thread of its own, over a connection of its own.

    The first goes out at once, then at most one every 5 ms. A process that was forked starts a
    thread of its own with its first wake.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._lanes: set[str] = set()
        self._dirty = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._ended = False

    def wake(self, lanes: Collection[str]) -> None:
        """Have these lanes woken; returns at once, never raises. From any thread."""
        if self._ended:
            return
        if self._pid != os.getpid():
            self._start()
        with self._lock:
            self._lanes.update(lanes)
        self._dirty.set()

    def close(self) -> None:
        """Send what is left to send, and stop."""
        self._ended = True
        self._closed.set()
        self._dirty.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(CLOSE_SECONDS)

    def _start(self) -> None:
        # All of them anew: a fork may have come while another thread held one.
        self._lock = threading.Lock()
        self._dirty, self._closed = threading.Event(), threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="allim waker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # Only here: `import allim` is to cost nothing.
        import psycopg

        from allim.database.wakes import RECONNECT_SECONDS

        while not self._closed.is_set():
            self._dirty.wait()
            try:
                with psycopg.connect(
                    self._url,
                    autocommit=True,
                    connect_timeout=5,
                    application_name="allim waker",
                    # Nobody knows here whether a pooler stands between.
                    prepare_threshold=None,
                ) as connection:
                    self._send_until_closed(connection)
            except psycopg.Error as error:
                reason = str(error).strip().splitlines()
                log.warning(
                    "wakes are not sent, relays poll meanwhile: %s",
                    reason[0] if reason else type(error).__name__,
                )
                self._closed.wait(RECONNECT_SECONDS)

    def _send_until_closed(self, connection: Any) -> None:
        from allim.database.wakes import CHANNEL, GATHER_SECONDS

        while True:
            self._dirty.wait()
            self._dirty.clear()
            with self._lock:
                lanes, self._lanes = self._lanes, set()
            if lanes:
                connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, ",".join(sorted(lanes))])
            if self._closed.wait(GATHER_SECONDS):
                return


_wakers: list[ThreadedWaker] = []
"""The wakers that this process has open, the newest last."""


@contextmanager
def waking(url: str | None = None) -> Iterator[ThreadedWaker]:
    """Wake relays from this process, as long as the block lasts.

    `url` is the database's; by default `DATABASE_URL`, from the environment or `.env`. Connects
    with the first wake. Raises ConfigurationError where there is no URL, or it cannot be one.
    """
    waker = ThreadedWaker(_checked(url))
    _wakers.append(waker)
    try:
        yield waker
    finally:
        _wakers.remove(waker)
        waker.close()


def wake(*lanes: str) -> None:
    """Wake relays now: to be called after a commit. Those of events, unless lanes are named."""
    if _wakers:
        _wakers[-1].wake(lanes or (EVENTS,))


def wake_after_commit(tx: Any, lanes: Collection[str]) -> None:
    """Wake relays when the caller's transaction is committed, where its toolkit can say so."""
    if _wakers:
        from allim.database.transactions import after_commit

        after_commit(tx, _wakers[-1].wake, lanes)


def _checked(url: str | None) -> str:
    from allim.base.errors import ConfigurationError
    from allim.base.settings import Environment
    from allim.database.pool import check_url

    url = url or Environment.of_process().get("DATABASE_URL")
    if url is None:
        raise ConfigurationError("waking() needs the database's URL, or DATABASE_URL")
    check_url(url)
    return url
