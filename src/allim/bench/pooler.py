"""PgBouncer in transaction mode before the database of a stage."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

from allim.base.errors import ConfigurationError, DatabaseUnavailable
from allim.bench.stage import START_SECONDS, free_port

CONFIGURATION = """\
[databases]
{name} = host={host} port={server_port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 30
max_client_conn = 1000
server_login_retry = 1
"""


def pgbouncer() -> str | None:
    """Where the program is; None where it is not installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextlib.contextmanager
def pooled(url: str) -> Iterator[str]:
    """The same database behind a PgBouncer of our own, until the block ends.

    Raises ConfigurationError where PgBouncer is not installed.
    """
    program = pgbouncer()
    if program is None:
        raise ConfigurationError("this case needs pgbouncer: install the package of that name")
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or "127.0.0.1"])[0]
    user = parts.username or query.get("user", ["allim"])[0]
    name = parts.path.removeprefix("/")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="allim-pooler-") as folder:
        Path(folder).chmod(0o755)
        file = Path(folder) / "pgbouncer.ini"
        file.write_text(
            CONFIGURATION.format(
                name=name,
                host=host,
                server_port=query.get("port", [str(parts.port or 5432)])[0],
                user=user,
                port=port,
            )
        )
        process = subprocess.Popen(
            [program, "-q", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=_unprivileged(host),
        )
        try:
            through = f"postgresql://{user}@127.0.0.1:{port}/{name}"
            _wait_for(through)
            yield through
        finally:
            process.terminate()
            process.wait(timeout=30)


def _unprivileged(host: str) -> int | None:
    """PgBouncer refuses to run as root: let it be whoever owns the server's socket."""
    if os.geteuid() != 0:
        return None
    owner = Path(host).stat().st_uid if host.startswith("/") else 0
    return owner or pwd.getpwnam("nobody").pw_uid


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=2).close()
            return
        time.sleep(0.05)
    raise DatabaseUnavailable("pgbouncer does not answer")
