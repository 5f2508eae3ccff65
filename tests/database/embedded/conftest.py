"""Homes to run servers in, and processes of Allim that share them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from allim.database.embedded import EmbeddedServer
from allim.database.embedded.postmaster import Postmaster, is_alive, orphans

SCRIPT = Path(__file__).with_name("allim_process.py")
SETTINGS_FILE = "data/postgresql.conf"
DEADLINE_SECONDS = 60.0


class AllimProcess:
    """A running `allim_process.py`."""

    def __init__(self, home: Path, user: str = "-") -> None:
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, home, user],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._opened: dict[str, Any] | None = None

    def opened(self) -> dict[str, Any]:
        """What it says once the server is open: url and data, or error."""
        if self._opened is None:
            self._opened = self._read()
        return self._opened

    def tell(self, command: str) -> None:
        """Have it do something, and wait until it is done."""
        self.opened()
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        assert self._read() == {"done": command}

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal and wait for its end."""
        self.process.send_signal(number)
        self.process.wait(DEADLINE_SECONDS)

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture
def launch() -> Iterator[Callable[..., AllimProcess]]:
    """Start processes of Allim; what still runs at the end of the test is killed."""
    started: list[AllimProcess] = []

    def start(home: Path, user: str = "-") -> AllimProcess:
        started.append(AllimProcess(home, user))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture
def workplace() -> Iterator[Path]:
    """An empty directory that every user may pass through, as pytest's own are closed."""
    path = Path(tempfile.mkdtemp(prefix="allim-test-")).resolve()
    path.chmod(0o755)
    yield path
    for record in path.rglob("location"):
        elsewhere = Path(record.read_text().strip())
        end_server(elsewhere / "data")
        shutil.rmtree(elsewhere, ignore_errors=True)
    for postgres in path.rglob("postgres/data"):
        end_server(postgres)
    shutil.rmtree(path)


@pytest.fixture
def empty_home(workplace: Path) -> Path:
    """A home that does not exist yet."""
    return workplace / "home"


@pytest.fixture(scope="session")
def made_home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="allim-test-")).resolve()
    path.chmod(0o755)
    EmbeddedServer.open(path / "home").close()
    yield path / "home"
    shutil.rmtree(path)


@pytest.fixture
def home(made_home: Path) -> Iterator[Path]:
    """A home with a database, whose server does not run; others use it before and after."""
    private = made_home / "postgres"
    kept = {name: (private / name).read_bytes() for name in ("data/PG_VERSION", SETTINGS_FILE)}
    yield made_home
    end_server(private / "data")
    private.chmod(0o700)
    for name, content in kept.items():
        (private / name).write_bytes(content)


@pytest.fixture
def copied_home(made_home: Path, workplace: Path) -> Path:
    """A home with a database to do as one pleases with."""
    subprocess.run(["cp", "-a", made_home, workplace / "home"], check=True)
    return workplace / "home"


@pytest.fixture
def value() -> Callable[[str, str], Any]:
    """Ask a database for one value."""

    def ask(url: str, query: str) -> Any:
        with psycopg.connect(url) as connection:
            row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None

    return ask


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object], str], None]:
    """Wait for a condition; fails, saying for what, where it does not come true."""

    def wait(condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited in vain for {what}")
            time.sleep(0.005)

    return wait


def end_server(data: Path) -> None:
    running = Postmaster.of(data)
    for pid in [*([running.pid] if running else []), *orphans(data)]:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
