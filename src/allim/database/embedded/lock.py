"""Locks between processes, on files; the kernel drops them when a process dies."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from allim.base.errors import EmbeddedServerError

POLL_SECONDS = 0.01
PATIENCE_SECONDS = 3900.0  # longer than the recovery that the holder may be waiting for
NOTICE_SECONDS = 5.0

log = logging.getLogger("allim.database")


class FileLock:
    """An open lock file; the lock itself is shared, exclusive or not held."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = _open(path)

    def share(self) -> None:
        """Hold it together with others. Waits for nobody: only used under another lock."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def try_alone(self) -> bool:
        """Hold it alone, at once; False where another process holds it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_of_path(self) -> bool:
        """Whether the path still leads to this file, and not to a later one or nothing."""
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def close(self) -> None:
        """Let go, for copies of this in forked processes too."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file `path` exclusively.

    Raises EmbeddedServerError after an hour of waiting, and OSError where the file
    cannot be made.
    """
    started = time.monotonic()
    noticed = False
    while True:
        lock = FileLock(path)
        try:
            while not lock.try_alone():
                waited = time.monotonic() - started
                if waited > PATIENCE_SECONDS:
                    raise EmbeddedServerError(
                        f"another Allim process has held {path} for over an hour; it is probably "
                        "stuck while starting or stopping the database. Find it and end it."
                    )
                if waited > NOTICE_SECONDS and not noticed:
                    noticed = True
                    log.info("waiting for another Allim process that holds %s", path)
                time.sleep(POLL_SECONDS)
            if lock.is_of_path():
                yield
                return
        finally:
            lock.close()


def holders(path: Path) -> list[int]:
    """The processes that hold the lock file, other than this; empty where that is not told.

    From `/proc/locks`, whose lines are like
    ``1: FLOCK  ADVISORY  READ  4242 fd:00:131 0 EOF`` with the inode last in the sixth field.
    """
    inode = path.stat().st_ino
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines]
    found = {int(f[4]) for f in fields if f[1] == "FLOCK" and f[5].endswith(f":{inode}")}
    return sorted(found - {os.getpid()})


def _open(path: Path) -> int:
    # O_NOFOLLOW: root may be opening this in a directory that somebody else owns.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
