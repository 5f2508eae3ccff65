"""The embedded server as the rest of Allim sees it: open, use, close."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from allim.base.errors import EmbeddedServerError
from allim.database.embedded import binaries, places, sockets
from allim.database.embedded.account import Account
from allim.database.embedded.binaries import Installation
from allim.database.embedded.cluster import Cluster
from allim.database.embedded.lock import FileLock, alone, holders
from allim.database.embedded.places import Place
from allim.database.embedded.postmaster import Postmaster

log = logging.getLogger("allim.database")


class EmbeddedServer:
    """This process's use of the PostgreSQL server of one home directory.

    Several processes, and several of these in one process, share a server. The one that
    closes last stops it. A process that dies without closing counts as gone; if it was
    the last, the server stays up and the next `open` joins it.
    """

    def __init__(self, *, place: Place, directory: Path, installation: Installation) -> None:
        self._place = place
        self._using = FileLock(_using(place.home))
        self._using.share()
        self._opened_by = os.getpid()
        self._closed = False
        self.url = sockets.url(directory)
        self.binaries = installation.programs
        self.major = installation.major
        self.home = place.home
        self.data = place.data

    @classmethod
    def open(
        cls,
        home: Path,
        *,
        installations: Callable[[], Iterable[Installation]] = binaries.installed_here,
    ) -> Self:
        """Start the server of `home`, or join it; returns when it accepts connections.

        Blocks: about a second the first time, a tenth of that later, and as long as crash
        recovery takes after a crash. What is missing (directory, data, the database
        `allim`) is made. Opening again restarts a server that was killed meanwhile, at
        the same URL.

        Raises EmbeddedServerError saying what to do where PostgreSQL cannot be run here.
        """
        with _said_of(home):
            home = places.prepare_home(home)
            with alone(_starting(home)):
                place = places.existing(home) or places.create(home)
                installation = binaries.choose(installations(), _major_of(place.data), place.data)
                directory = sockets.socket_directory(place)
                server = cls(place=place, directory=directory, installation=installation)
                try:
                    cluster = Cluster(place, directory, installation)
                    started = cluster.start_or_join()
                    cluster.ensure_database()
                except BaseException:
                    server._leave(leave_running=False)
                    raise
        atexit.register(server.close)
        log.info(
            "PostgreSQL %s (%s, %s) %s; data in %s, run by %s, socket in %s",
            installation.version,
            installation.source,
            installation.programs,
            "started" if started else "joined",
            place.data,
            place.account.name,
            directory,
        )
        return server

    def close(self, *, leave_running: bool = False) -> None:
        """Stop using the server; the last one out stops it, unless `leave_running`.

        Does nothing the second time. A server left running stays until `stop`, or until
        the last of those who open it later closes.

        Raises EmbeddedServerError where the server does not stop.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        if os.getpid() != self._opened_by:
            return  # a fork's copy: the use is its parent's, and so is the lock
        try:
            with alone(_starting(self.home)):
                self._leave(leave_running=leave_running)
        except FileNotFoundError:
            self._using.close()
            log.warning(
                "%s is gone, so its server was not stopped: it ends by itself within a minute "
                "where the files were deleted, and goes on where they were moved",
                self.home,
            )

    @classmethod
    def stop(cls, home: Path, *, even_if_used: bool = False) -> bool:
        """Stop the server of `home`, whoever started it; False where none was running.

        Raises EmbeddedServerError naming the Allim processes that still use it, unless
        `even_if_used`; and where it does not stop.
        """
        home = home.expanduser().resolve()
        if not home.is_dir():
            return False
        with _said_of(home), alone(_starting(home)):
            place = places.existing(home)
            if place is None or Postmaster.of(place.data) is None:
                return False
            using = FileLock(_using(home))
            try:
                if not using.try_alone() and not even_if_used:
                    raise EmbeddedServerError(
                        f"the database in {place.data} is still used by other Allim processes"
                        f"{_listed(holders(_using(home)))}. End them first; "
                        "the last one stops it."
                    )
                return _stop(place)
            finally:
                using.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _leave(self, *, leave_running: bool) -> None:
        """Called under the starting lock, so nobody comes in between looking and stopping."""
        try:
            if self._using.try_alone() and not leave_running:
                _stop(self._place)
        finally:
            self._using.close()


def _stop(place: Place) -> bool:
    running = Postmaster.of(place.data)
    if running is None:
        return False
    running.stop()
    sockets.forget_socket_directory(place)
    return True


def _starting(home: Path) -> Path:
    return home / "starting.lock"


def _using(home: Path) -> Path:
    return home / "using.lock"


def _major_of(data: Path) -> int | None:
    """The major version that made a data directory; None where there is none yet."""
    if not data.exists():
        return None
    try:
        return int((data / "PG_VERSION").read_text().strip())
    except (FileNotFoundError, ValueError):
        raise EmbeddedServerError(
            f"{data} is there but is no PostgreSQL data directory (no readable PG_VERSION). "
            "Restore it from a backup, or move it away to begin with an empty database."
        ) from None


def _listed(pids: Sequence[int]) -> str:
    return f" (pid {', '.join(map(str, pids))})" if pids else ""


@contextmanager
def _said_of(home: Path) -> Iterator[None]:
    """What the system refuses, said with the home that it was refused for."""
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(
            f"cannot keep a database in {home}: {error}. Check that user "
            f"{Account.current().name} can write there and that the disk is not full, or set "
            "ALLIM_HOME to another directory."
        ) from error
