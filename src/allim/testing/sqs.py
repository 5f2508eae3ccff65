"""An SQS of one's own: `moto_server` in a process of its own, gone at the end.

with sqs_server() as sqs:
    ... run with the variables `sqs.environment()`
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PATIENCE_SECONDS = 60.0
REGION = "ap-northeast-2"


@dataclass(frozen=True, slots=True)
class SqsServer:
    """Where it is."""

    url: str

    def environment(self, queue: str = "academy-messaging-jobs") -> dict[str, str]:
        """The variables by which Allim, and botocore, find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "MESSAGING_SQS_QUEUE_NAME": queue,
        }


@contextmanager
def sqs_server() -> Iterator[SqsServer]:
    """Start one on a free port; it answers when this returns."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MOTO_PORT": str(port)},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield SqsServer(url)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_SECONDS)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"moto_server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5.0):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError("moto_server does not answer")
