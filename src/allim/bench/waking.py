"""From the commit to the send, on an idle system."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from allim.bench import commit_to_send
from allim.bench.figures import Figure, at_most, plain, quantile
from allim.bench.stage import Stage, ask

CASE = "wake"
PER_SECOND = 20


def run(stage: Stage, *, seconds: float = 10.0) -> Iterator[Figure]:
    """Within one process from the commit to the send; over HTTP, at 20/s, from the answer (which
    follows the commit) to the request at a local sink."""
    yield from commit_to_send.run(stage, seconds=seconds)
    yield from _measure(stage, "one process", ("up",), None, seconds, None)
    yield from _measure(stage, "API and relay apart", ("api",), ("relay",), seconds, 4.0)


def _measure(
    stage: Stage,
    name: str,
    api: tuple[str, ...],
    relay: tuple[str, ...] | None,
    seconds: float,
    most: float | None,
) -> Iterator[Figure]:
    stage.clear()
    with stage.process("allim.bench.sink") as sink:
        assert sink.stdout is not None
        hook = f"http://127.0.0.1:{int(sink.stdout.readline())}/hook"
        with stage.api(*api) as base:
            if relay is None:
                delays = _post(base, hook, sink=sink, seconds=seconds)
            else:
                with stage.process("allim", *relay):
                    delays = _post(base, hook, sink=sink, seconds=seconds)
    milliseconds = [delay * 1000 for delay in delays]
    p50 = quantile(milliseconds, 0.5)
    middle = f"answer to arrival, {name}, p50"
    yield plain(CASE, middle, p50, "ms") if most is None else at_most(CASE, middle, p50, "ms", most)
    yield plain(CASE, f"answer to arrival, {name}, p99", quantile(milliseconds, 0.99), "ms")


def _post(base: str, hook: str, *, sink: subprocess.Popen[str], seconds: float) -> list[float]:
    """The delays of posts spread over `seconds`, once a first second's posts have arrived."""
    parts = urlsplit(base)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    body = json.dumps(
        {
            "source": "bench",
            "type": "PING",
            "title": "ping",
            "message": "ping",
            "deliveries": [{"channel": "WEBHOOK", "recipient": hook}],
        }
    )
    # The relay may still be starting.
    _delays(_answers(connection, body, PER_SECOND), sink, patience=30)
    delays = _delays(_answers(connection, body, int(seconds * PER_SECOND)), sink, patience=10)
    connection.close()
    return delays


def _answers(connection: http.client.HTTPConnection, body: str, count: int) -> dict[str, float]:
    """Post `count` times at an even pace; when each was answered, by webhook id."""
    answered: dict[str, float] = {}
    next_at = time.perf_counter()
    for _ in range(count):
        next_at += 1 / PER_SECOND
        time.sleep(max(next_at - time.perf_counter(), 0))
        connection.request("POST", "/notifications", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        at = time.perf_counter()
        answer = json.loads(response.read())
        if response.status != 202:
            raise RuntimeError(f"POST /notifications answered {response.status}: {answer}")
        answered[f"msg_{answer['id']}_{answer['deliveries'][0]['id']}"] = at
    return answered


def _delays(
    answered: dict[str, float], sink: subprocess.Popen[str], *, patience: float
) -> list[float]:
    """From each answer to the arrival of its webhook; 0 where that came first."""
    deadline = time.monotonic() + patience
    while True:
        arrivals = ask(sink, "arrivals")["arrivals"]
        missing = answered.keys() - arrivals.keys()
        if not missing:
            return [max(arrivals[key] - at, 0.0) for key, at in answered.items()]
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(missing)} of {len(answered)} webhooks did not arrive")
        time.sleep(0.1)
