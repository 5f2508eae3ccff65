"""A data directory and its server: making the one, starting the other."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import pq, sql

from allim.base.errors import EmbeddedServerError
from allim.database.embedded.binaries import Installation, copy
from allim.database.embedded.places import Place, private_directory
from allim.database.embedded.postmaster import (
    Postmaster,
    clear_stale_files,
    orphans,
)
from allim.database.embedded.sockets import DATABASE, PORT, SOCKET_NAME, USER

POLL_SECONDS = 0.01
SLOWEST_POLL_SECONDS = 0.5
DEAF_SECONDS = 20.0
RECOVERY_SECONDS = 3600.0
NOTICE_SECONDS = 10.0
ORPHANS_LEAVE_SECONDS = 2.0
ORPHANS_GONE_SECONDS = 60.0
LOG_BYTES = 10_000_000
LOG_TAIL_LINES = 15

SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",  # the log is read for one message, below
    "log_line_prefix": "%m [%p] ",
    "logging_collector": "off",
    "cluster_name": "allim",
}

log = logging.getLogger("allim.database")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The data directory of a place, served by one installation on one socket."""

    place: Place
    sockets: Path
    installation: Installation

    def start_or_join(self) -> bool:
        """Return when a server of this data directory takes connections; True if started here.

        Called under the home's starting lock. Waits for crash recovery as long as the
        server lives.

        Raises EmbeddedServerError with the end of the server's log where it does not start.
        """
        running = Postmaster.of(self.place.data)
        # Asking the socket comes first: a server in another container that shares the home
        # has a pid that means nothing here.
        if self._answers(running):
            return False
        if running is not None and running.is_running():
            log.warning("the server with pid %d does not answer; starting another", running.pid)
            running.stop()
        programs = self._programs()
        if not self.place.data.exists():
            self._initialise(programs)
        self._start(programs)
        return True

    def ensure_database(self) -> None:
        """Create the database `allim` where the server has none yet."""
        try:
            with psycopg.connect(self._conninfo(), autocommit=True) as connection:
                there = connection.execute(
                    "SELECT FROM pg_database WHERE datname = %s", [DATABASE]
                ).fetchone()
                if there is None:
                    name = sql.Identifier(DATABASE)
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        except psycopg.Error as error:
            raise EmbeddedServerError(
                f"the server of {self.place.data} runs, but the database {DATABASE!r} could not be "
                f"looked up or created: {error}"
            ) from error

    def _programs(self) -> Installation:
        """The installation, or a copy that the server's user can reach."""
        account = self.place.account
        if not account.switches or account.can_run(self.installation.postgres):
            return self.installation
        copied = copy(self.installation, into=self.place.directory)
        if not account.can_run(copied.postgres):
            raise EmbeddedServerError(
                f"user {account.name}, who runs PostgreSQL for root, cannot run "
                f"{self.installation.postgres}, nor a copy of it in {copied.programs}. Install "
                "PostgreSQL where every user can run it, or run Allim as an ordinary user."
            )
        log.info("user %s runs a copy of PostgreSQL in %s", account.name, copied.programs)
        return copied

    def _initialise(self, programs: Installation) -> None:
        """Make the data directory elsewhere and rename it, so that it is whole or not there."""
        for left in self.place.directory.glob("unfinished-*"):
            shutil.rmtree(left, ignore_errors=True)  # an initdb may still be writing in it
        made = private_directory(
            self.place.directory, prefix="unfinished-", account=self.place.account
        )
        locale = (
            ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            if self.installation.major >= 17
            else []
        )
        finished = self.place.account.run(
            [
                programs.initdb,
                f"--pgdata={made}",
                f"--username={USER}",
                "--auth-local=trust",
                "--auth-host=reject",
                "--encoding=UTF8",
                "--locale=C",
                *locale,
                "--no-instructions",
            ]
        )
        if finished.returncode != 0:
            shutil.rmtree(made, ignore_errors=True)
            raise EmbeddedServerError(
                f"could not make a data directory in {self.place.directory} with "
                f"{programs.initdb}:\n{_tail(finished.stderr or finished.stdout)}"
            )
        made.rename(self.place.data)
        _sync_directory(self.place.directory)

    def _start(self, programs: Installation) -> None:
        began = time.monotonic()
        while True:
            clear_stale_files(self.place.data, self.sockets, SOCKET_NAME)
            log_begins = self._rotated_log_size()
            postmaster = self._spawn(programs)
            if self._answers(postmaster):
                return
            if postmaster.is_running():
                postmaster.stop()
            said = self._log_since(log_begins)
            waited = time.monotonic() - began
            # Processes of a killed postmaster hold its shared memory until they notice.
            if "shared memory block" not in said or waited > ORPHANS_GONE_SECONDS:
                raise EmbeddedServerError(
                    f"PostgreSQL {self.installation.version} ({programs.programs}) did not "
                    f"start on {self.place.data}. The end of {self.place.log}:\n{_tail(said)}"
                )
            if waited > ORPHANS_LEAVE_SECONDS:
                for pid in orphans(self.place.data):
                    os.kill(pid, signal.SIGQUIT)
            time.sleep(5 * POLL_SECONDS)

    def _spawn(self, programs: Installation) -> Postmaster:
        """Start the server as nobody's child; its pid comes from the shell that left it.

        As our child it would be a zombie when it dies, and a zombie's pid counts as taken.
        The shell, running as the server's user, also opens the log.
        """
        settings = {**SETTINGS, "unix_socket_directories": str(self.sockets)}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        script = 'umask 077; log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
        shell: list[str | Path] = ["/bin/sh", "-c", script, "sh", self.place.log]
        started = self.place.account.run(
            [*shell, programs.postgres, "-D", self.place.data, *arguments]
        )
        if not started.stdout.strip().isdecimal():
            raise EmbeddedServerError(
                f"could not start {programs.postgres} on {self.place.data}: {_tail(started.stderr)}"
            )
        return Postmaster(pid=int(started.stdout), data=self.place.data)

    def _answers(self, postmaster: Postmaster | None) -> bool:
        """Wait until the server takes connections; False where it dies, or stays deaf."""
        began = heard = noticed = time.monotonic()
        while True:
            answer = pq.PGconn.ping(self._conninfo().encode())
            now = time.monotonic()
            if answer == pq.Ping.OK:
                return True
            if answer == pq.Ping.REJECT:
                heard = now
            elif postmaster is None or not postmaster.is_running():
                return False
            if now - heard > DEAF_SECONDS or now - began > RECOVERY_SECONDS:
                return False
            if now - noticed > NOTICE_SECONDS:
                noticed = now
                log.info(
                    "waiting for PostgreSQL to recover, %.0f s so far; its log is %s",
                    now - began,
                    self.place.log,
                )
            # The server writes each refusal to its log: ask less often as it takes longer.
            time.sleep(min(max(POLL_SECONDS, (now - began) / 20), SLOWEST_POLL_SECONDS))

    def _conninfo(self) -> str:
        return psycopg.conninfo.make_conninfo(
            host=str(self.sockets), port=PORT, user=USER, dbname="postgres", connect_timeout=5
        )

    def _rotated_log_size(self) -> int:
        try:
            size = self.place.log.stat().st_size
        except FileNotFoundError:
            return 0
        if size < LOG_BYTES:
            return size
        self.place.log.replace(self.place.log.with_suffix(".log.1"))
        return 0

    def _log_since(self, position: int) -> str:
        try:
            with self.place.log.open("rb") as stream:
                stream.seek(position)
                return stream.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LOG_TAIL_LINES:]) or "(it said nothing)"


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
