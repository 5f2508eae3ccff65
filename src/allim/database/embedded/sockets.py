"""The directory of the server's socket, and the addresses made from it."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from allim.base.errors import EmbeddedServerError
from allim.database.embedded.account import Account
from allim.database.embedded.places import Place, private_directory, write

USER = "allim"
DATABASE = "allim"
PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"
LONGEST_PATH_BYTES = 107 if sys.platform.startswith("linux") else 103

# libpq and the server split lists of hosts and directories at commas; postmaster.pid is
# made of lines.
UNSAFE_CHARACTERS = ',"\n'


def socket_directory(place: Place) -> Path:
    """Where the socket is or will be: beside the data, or in a short private directory.

    The short one has an unguessable name, is kept in a record beside the data, and is used
    again only while it is still a directory of ours that is closed to others.

    Raises EmbeddedServerError where no short directory can be made.
    """
    if fits(place.directory):
        return place.directory
    record = _record(place)
    if record.exists():
        recorded = Path(record.read_text().strip())
        if _is_private(recorded, place.account):
            return recorded
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108
        if fits(parent / "allim-12345678") and place.account.can_enter(parent):
            made = private_directory(parent, prefix="allim-", account=place.account)
            write(record, f"{made}\n")
            return made
    raise EmbeddedServerError(
        f"the path of the socket in {place.directory} would be longer than the "
        f"{LONGEST_PATH_BYTES} bytes that this system allows, and there is no usable temporary "
        "directory with a short path. Set ALLIM_HOME to a shorter path."
    )


def forget_socket_directory(place: Place) -> None:
    """Remove the short directory, once no server uses it."""
    record = _record(place)
    if not record.exists():
        return
    directory = Path(record.read_text().strip())
    if _is_private(directory, place.account):
        for left in (directory / SOCKET_NAME, directory / f"{SOCKET_NAME}.lock"):
            left.unlink(missing_ok=True)
        directory.rmdir()
    record.unlink()


def fits(directory: Path) -> bool:
    """Whether a socket in `directory` can be named by every client."""
    path = os.fsencode(directory / SOCKET_NAME)
    return len(path) <= LONGEST_PATH_BYTES and not any(
        c in str(directory) for c in UNSAFE_CHARACTERS
    )


def url(sockets: Path) -> str:
    """The URL for libpq, psycopg, asyncpg and SQLAlchemy.

    It names the port too, so that nobody's PGPORT leads it elsewhere.
    """
    return (
        f"postgresql://{USER}@/{DATABASE}?host={quote(os.fsencode(sockets), safe='')}&port={PORT}"
    )


def _record(place: Place) -> Path:
    return place.directory / "socket"


def _is_private(directory: Path, account: Account) -> bool:
    try:
        found = directory.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid and not found.st_mode & 0o077
