"""What the cases run on: an embedded database of their own, and real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from allim.database.embedded import EmbeddedServer
from allim.database.migrate import migrate

START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Stage:
    """An empty, migrated database, and the environment that leads processes to it."""

    url: str
    home: Path
    environment: Mapping[str, str]

    def clear(self) -> None:
        """Take out everything that a case before left."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("TRUNCATE notification, delivery, delivery_attempt, rate_limit")
            connection.execute("VACUUM")
            connection.execute("CHECKPOINT")

    def fetch(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement.encode(), parameters or None).fetchall()

    @contextlib.contextmanager
    def process(self, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """Run `python -m …` until the block ends; its stdin and stdout are pipes."""
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env={**self.environment, **variables},
            cwd=self.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @contextlib.contextmanager
    def api(self, *more: str, **variables: str) -> Iterator[str]:
        """Run `allim api` (or `allim up`); the base URL."""
        port = free_port()
        command = more or ("api",)
        with self.process("allim", *command, ALLIM_PORT=str(port), **variables):
            base = f"http://127.0.0.1:{port}"
            wait_for(f"{base}/health/ready")
            yield base


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Set the stage in a temporary folder, and take it away afterwards."""
    with tempfile.TemporaryDirectory(prefix="allim-bench-") as folder:
        home = Path(folder)
        # Root's server is somebody else's process: let it in, or it leaves its data elsewhere.
        home.chmod(0o755)
        with EmbeddedServer.open(home / "database") as server:
            migrate(server.url)
            inherited = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("ALLIM_", "SLACK_", "SMTP_", "WEBHOOK_", "DATABASE_"))
                and name != "PYTHONDONTWRITEBYTECODE"
            }
            yield Stage(
                server.url,
                home,
                {
                    **inherited,
                    "DATABASE_URL": server.url,
                    "ALLIM_LOG_LEVEL": "WARNING",
                    "ALLIM_SSRF_ALLOW": "127.0.0.0/8",
                },
            )


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, seconds: float = START_SECONDS) -> None:
    """Wait until a URL answers. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
            return
        time.sleep(0.05)
    raise TimeoutError(f"{url} did not answer within {seconds:g} s")


def ask(process: subprocess.Popen[str], question: str = "") -> dict[str, Any]:
    """Write a line to a process and read the JSON line it answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(question + "\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer
