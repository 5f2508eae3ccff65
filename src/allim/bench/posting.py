"""`POST /notifications` against the handler anybody would write first."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from allim.bench.figures import Figure, at_least, at_most, plain
from allim.bench.stage import Stage, free_port, wait_for

CASE = "post"
WANTED = {1: 1.0, 16: 1.5, 64: 2.0}
BODY = {
    "source": "payment-service",
    "type": "PAYMENT_FAILED",
    "title": "결제 실패",
    "message": "카드 승인이 거절되었습니다",
    "deliveries": [{"channel": "EMAIL", "recipient": "kim@example.com"}, {"channel": "SLACK"}],
}


def run(stage: Stage, *, rounds: int = 3, seconds: float = 2.0) -> Iterator[Figure]:
    """Both servers up, loaded in turn; the ratio of their medians at 1, 16 and 64 connections."""
    body = json.dumps(BODY, ensure_ascii=False).encode()
    port = free_port()
    bare_command = ("uvicorn", "--factory", "allim.bench.bare:make_app", "--port", str(port))
    quiet = ("--no-access-log", "--log-level", "warning")
    with stage.process(*bare_command, *quiet), stage.api() as ours:
        bare = f"http://127.0.0.1:{port}"
        wait_for(f"{bare}/openapi.json")
        for connections, least in WANTED.items():
            stage.clear()
            bare_rates: list[float] = []
            our_rates: list[float] = []
            means: list[float] = []
            for number in range(rounds + 1):
                for base, rates in ((bare, bare_rates), (ours, our_rates)):
                    answer = load(f"{base}/notifications", body, connections, seconds)
                    if number == 0:
                        continue  # the first round warms both up
                    rates.append(answer["per_second"])
                    if base == ours:
                        means.append(answer["mean"] * 1000)
            at = f"{connections} connections" if connections > 1 else "1 connection"
            ratio = statistics.median(our_rates) / statistics.median(bare_rates)
            yield plain(CASE, f"bare handler, {at}", statistics.median(bare_rates), "requests/s")
            yield plain(CASE, f"Allim, {at}", statistics.median(our_rates), "requests/s")
            yield at_least(CASE, f"Allim to bare, {at}", ratio, "×", least)
            yield at_most(CASE, f"Allim's mean answer, {at}", statistics.median(means), "ms", 200)


def load(url: str, body: bytes, connections: int, seconds: float) -> dict[str, Any]:
    """Load a server from a process of its own; what that says. Raises RuntimeError if refused."""
    done = subprocess.run(
        [sys.executable, "-m", "allim.bench.load", url, str(connections), str(seconds)],
        input=body,
        capture_output=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    if answer["refused"] or not answer["requests"]:
        raise RuntimeError(f"{url} refused the load: {answer['refused']}")
    return answer
