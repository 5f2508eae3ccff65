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
TRIES = 3
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
    process, url = _started()
    try:
        yield SqsServer(url)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_SECONDS)


def _started() -> tuple[subprocess.Popen[bytes], str]:
    for _ in range(TRIES):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MOTO_PORT": str(port)},
        )
        url = f"http://127.0.0.1:{port}"
        if _answers(url, process):
            return process, url
        process.kill()
        process.wait()
    raise RuntimeError("moto_server does not answer: is moto[server] installed?")


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether it came up; not where somebody else took its port meanwhile."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5.0):  # noqa: S310
                return process.poll() is None
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False
