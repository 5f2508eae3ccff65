"""The system user that the server runs as.

PostgreSQL refuses to run as root, so root hands it to an unprivileged user that is
there already. No user is created and no directory is opened up for it.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allim.base.errors import EmbeddedServerError

UNPRIVILEGED = ("postgres", "nobody")

# What the server and initdb get to see. Not the rest: Allim's own variables hold
# secrets, and PG* ones would change what the server does.
PASSED_ON = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Account:
    """A system user; `switches` where this process must change to it first."""

    name: str
    uid: int
    gid: int
    switches: bool

    @classmethod
    def current(cls) -> Account:
        """The user this process runs as."""
        return cls(name=_name_of(os.geteuid()), uid=os.geteuid(), gid=os.getegid(), switches=False)

    @classmethod
    def unprivileged(cls, names: Sequence[str] = UNPRIVILEGED) -> Account:
        """The first of `names` that exists here.

        Raises EmbeddedServerError where none does.
        """
        for name in names:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            if entry.pw_uid != 0:
                return cls(name=name, uid=entry.pw_uid, gid=entry.pw_gid, switches=True)
        raise EmbeddedServerError(
            f"PostgreSQL does not run as root, and there is no user {' or '.join(names)} "
            "to run it. Run Allim as an ordinary user, or set DATABASE_URL to a server of your own."
        )

    @classmethod
    def owning(cls, directory: Path) -> Account:
        """The unprivileged user that owns `directory`, for a process of root."""
        found = directory.stat()
        return cls(name=_name_of(found.st_uid), uid=found.st_uid, gid=found.st_gid, switches=True)

    def take(self, path: Path) -> None:
        """Give a directory that this process just made to the account."""
        if self.switches:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run a command as this user to its end, in a session of its own.

        Its own session, so that Ctrl-C on Allim's terminal reaches neither it nor
        what it leaves running.

        Raises OSError where the user cannot reach the program.
        """
        change: dict[str, Any] = {}
        if self.switches:
            change = {"user": self.uid, "group": self.gid, "extra_groups": []}
        return subprocess.run(
            command,
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            check=False,
            **change,
        )

    def can_run(self, program: Path) -> bool:
        """Whether the user reaches and may execute `program`, by trying."""
        try:
            return self.run([program, "--version"]).returncode == 0
        except OSError:
            return False

    def can_enter(self, directory: Path) -> bool:
        """Whether the user reaches `directory` past all of its parents, by trying."""
        if not self.switches:
            return os.access(directory, os.X_OK)
        return self.run(["/bin/sh", "-c", 'cd "$1"', "sh", directory]).returncode == 0


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C", "TZ": "UTC"}
