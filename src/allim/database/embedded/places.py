"""Where the files of a home are: one directory of mode 0700 for data, log and socket.

    home/                  made by us: 0700; there already: left as it is
      starting.lock        held while a server is started or stopped
      using.lock           held by every Allim process that uses the server
      location             only where `postgres` could not be in here: where it is instead
      postgres/            0700, of the user the server runs as
        data/  server.log  .s.PGSQL.5432

Connections need no password, which is safe because nobody else gets past the 0700.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from allim.base.errors import EmbeddedServerError
from allim.database.embedded.account import Account

FALLBACK_PARENTS = (Path("/var/lib"), Path("/var/db"), Path("/var/tmp"))  # noqa: S108

log = logging.getLogger("allim.database")


@dataclass(frozen=True, slots=True)
class Place:
    """The private directory of a home's server, and the user that it belongs to."""

    home: Path
    directory: Path
    account: Account

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "server.log"


def prepare_home(home: Path) -> Path:
    """Make the home where it is missing; returns its resolved path.

    A home made here is private to the user the server runs as (root gets in anyway).
    One that exists keeps its mode and owner.
    """
    home = home.expanduser().resolve()
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    # Renamed into place, so that others starting now never see it half made.
    made = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=home.parent))
    (made / ".gitignore").write_text("*\n")
    if os.geteuid() == 0:
        Account.unprivileged().take(made)
    try:
        made.rename(home)
    except OSError:
        (made / ".gitignore").unlink()
        made.rmdir()
        if not home.is_dir():
            raise
    return home


def existing(home: Path) -> Place | None:
    """The place that a home has already; `home` is a resolved path.

    Raises EmbeddedServerError where its directory is lost, open to others, or of a user
    that this process cannot act for.
    """
    elsewhere = _recorded(home)
    directory = elsewhere or home / "postgres"
    if not directory.is_dir():
        return None
    owner = directory.stat().st_uid
    if owner != os.geteuid() and os.geteuid() != 0:
        raise EmbeddedServerError(
            f"{directory} belongs to user {Account.owning(directory).name}, and this is "
            f"{Account.current().name}. Run Allim as the user that made it, or set ALLIM_HOME to "
            "a directory of your own."
        )
    if owner == 0:
        raise EmbeddedServerError(
            f"{directory} belongs to root, but PostgreSQL does not run as root. Give it to the "
            f"user {Account.unprivileged().name} (chown -R), or move it away."
        )
    if directory.stat().st_mode & 0o077:
        raise EmbeddedServerError(
            f"{directory} is open to other users, who could then connect without a password. "
            f"Close it: chmod 700 '{directory}'"
        )
    account = Account.owning(directory) if os.geteuid() == 0 else Account.current()
    if not account.can_enter(directory):
        raise EmbeddedServerError(
            f"the database is in {directory}, and PostgreSQL runs as user {account.name}, who "
            "cannot get there: a parent directory is closed. Open that parent to be passed "
            "through (chmod o+x), or move the home back to where it was."
        )
    return Place(home=home, directory=directory, account=account)


def create(home: Path, *, fallback_parents: Sequence[Path] = FALLBACK_PARENTS) -> Place:
    """Make the place of a home that has none: inside it, or where the server can reach it.

    Raises EmbeddedServerError where neither can be, OSError where the disk refuses.
    """
    account = Account.unprivileged() if os.geteuid() == 0 else Account.current()
    if not account.switches or account.can_enter(home):
        made = private_directory(home, prefix="postgres.", account=account)
        return Place(home=home, directory=made.rename(home / "postgres"), account=account)
    for parent in fallback_parents:
        if not (parent.is_dir() and account.can_enter(parent)):
            continue
        try:
            directory = private_directory(
                parent, prefix=f"allim-{_fingerprint(home)}-", account=account
            )
        except OSError:
            continue  # a read-only file system, say: the next one may do
        (directory / "home").write_text(f"{home}\n")
        write(home / "location", f"{directory}\n")
        log.warning(
            "user %s, who runs PostgreSQL for root, cannot reach %s: the database is in %s",
            account.name,
            home,
            directory,
        )
        return Place(home=home, directory=directory, account=account)
    raise EmbeddedServerError(
        f"PostgreSQL runs as user {account.name} when Allim runs as root, and that user can reach "
        f"neither {home} nor any of {', '.join(map(str, fallback_parents))}. Set ALLIM_HOME to a "
        "directory whose parents it may pass through, or run Allim as an ordinary user."
    )


def private_directory(parent: Path, *, prefix: str, account: Account) -> Path:
    """Make a directory of mode 0700 and an unguessable name, of the account."""
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    account.take(made)
    return made


def write(path: Path, text: str) -> None:
    """Write a small file whole. Root does this in directories of others: follows no link there."""
    descriptor, unfinished = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    Path(unfinished).rename(path)


def _recorded(home: Path) -> Path | None:
    """The place outside of the home that its `location` names; None where it names none.

    A home that was moved keeps its database. Of a home that was copied, the copy begins
    with an empty one: two homes must not run two servers on the same files.
    """
    record = home / "location"
    try:
        directory = Path(record.read_text().strip())
    except FileNotFoundError:
        return None
    if directory.is_symlink() or not directory.is_dir():
        raise EmbeddedServerError(
            f"{record} says that the database is in {directory}, which is not there. Bring that "
            f"directory back, or delete {record} to begin with an empty database."
        )
    owner_record = directory / "home"
    owner = Path(owner_record.read_text().strip())
    if owner == home:
        return directory
    if (owner / "location").exists() and (owner / "location").read_text() == record.read_text():
        log.warning("%s is a copy of %s and gets a database of its own", home, owner)
        return None
    write(owner_record, f"{home}\n")
    return directory


def _fingerprint(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
