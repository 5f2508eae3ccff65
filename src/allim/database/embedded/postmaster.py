"""The running server process of a data directory: finding it, starting it, ending it.

A pid in `postmaster.pid` proves nothing: after a crash it may belong to any program. So a
process counts as the server only where it works in that data directory, and nothing else
is ever sent a signal.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from allim.base.errors import EmbeddedServerError

POLL_SECONDS = 0.01
STOP_SECONDS = 120.0
PROC = Path("/proc")

log = logging.getLogger("allim.database")


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A server process, by its pid and the data directory it works in."""

    pid: int
    data: Path

    @classmethod
    def of(cls, data: Path) -> Postmaster | None:
        """The live server of a data directory, whoever started it."""
        pid = _first_line_as_pid(data / "postmaster.pid")
        if pid is None or not _works_in(pid, data):
            return None
        return cls(pid=pid, data=data)

    def is_running(self) -> bool:
        """Whether the process is there, and more than a zombie."""
        return is_alive(self.pid)

    def stop(self) -> None:
        """Fast shutdown: ends connections, writes a checkpoint. Returns when it is gone.

        Raises EmbeddedServerError where that takes longer than two minutes.
        """
        try:
            os.kill(self.pid, signal.SIGINT)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + STOP_SECONDS
        while self.is_running():
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"PostgreSQL (pid {self.pid}, data in {self.data}) was asked to stop "
                    f"{STOP_SECONDS:.0f} s ago and still does not; see server.log there."
                )
            time.sleep(POLL_SECONDS)


def clear_stale_files(data: Path, sockets: Path, socket_name: str) -> None:
    """Remove lock files left by a server that is gone, where they would bar the next one.

    PostgreSQL clears up after a pid that is free; it refuses to start where the pid belongs
    to any other live process. Called only while no server of `data` runs. Two servers on the
    same files stay impossible even if that were wrong: PostgreSQL also checks the shared
    memory that belongs to the data directory.
    """
    for lock in (data / "postmaster.pid", sockets / f"{socket_name}.lock"):
        if not lock.exists():
            continue
        pid = _first_line_as_pid(lock)
        if pid is None or pid_exists(pid):
            log.info("removing %s, left by a server that is gone (pid %s)", lock, pid)
            lock.unlink(missing_ok=True)


def orphans(data: Path) -> Iterator[int]:
    """Server processes of `data` whose postmaster was killed; empty where /proc is not there."""
    if not PROC.is_dir():
        return
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and _works_in_by_proc(int(entry.name), data):
            yield int(entry.name)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    if not pid_exists(pid):
        return False
    if os.getpid() == 1:
        # In a container Allim may be the one who has to bury the server it detached.
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    try:
        status = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return pid_exists(pid)
    return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def pid_exists(pid: int) -> bool:
    """Whether there is a process of this number, of any user, zombies included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _first_line_as_pid(path: Path) -> int | None:
    try:
        first = path.read_text(errors="replace").partition("\n")[0].strip()
    except FileNotFoundError:
        return None
    pid = int(first) if first.lstrip("-").isdecimal() else 0
    return abs(pid) or None  # negative: a single-user server


def _works_in(pid: int, data: Path) -> bool:
    if not is_alive(pid):
        return False
    if (PROC / "self").exists():
        return _works_in_by_proc(pid, data)
    command = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return "postgres" in command and f"-D {data}" in command


def _works_in_by_proc(pid: int, data: Path) -> bool:
    try:
        if not data.samefile(PROC / str(pid) / "cwd"):
            return False
        program = (PROC / str(pid) / "exe").readlink().name
    except OSError:
        return False  # gone meanwhile, or of another user: ours can be read
    return program.removesuffix(" (deleted)") == "postgres"
