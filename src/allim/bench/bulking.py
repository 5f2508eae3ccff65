"""Deliveries written in bulk: through HTTP by one API process, against plain `unnest`."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg

from allim.bench.figures import Figure, at_least, plain
from allim.bench.posting import BODY, load
from allim.bench.stage import Stage

CASE = "bulk"
CONNECTIONS = 4
WANTED = 20_000
BARE = """
WITH n AS (
    INSERT INTO notification (id, source, type, title, message)
    SELECT id, %(source)s, %(type)s, %(title)s, %(message)s
      FROM unnest(%(ids)s::uuid[]) AS w (id) RETURNING id)
INSERT INTO delivery (notification_id, channel, recipient, max_attempts)
SELECT w.id, 'EMAIL', w.recipient, 8
  FROM unnest(%(all_ids)s::uuid[], %(recipients)s::text[]) AS w (id, recipient)
RETURNING id"""


def run(stage: Stage, *, rounds: int = 3, seconds: float = 3.0) -> Iterator[Figure]:
    """Three shapes of a thousand deliveries: a notification for each, for ten, for all."""
    rates: dict[tuple[int, int], list[float]] = {}
    bare: list[float] = []
    with stage.api() as base:
        for number in range(rounds + 1):
            for notifications, each in ((1000, 1), (100, 10), (1, 1000)):
                stage.clear()
                answer = load(
                    f"{base}/notifications/bulk", _body(notifications, each), CONNECTIONS, seconds
                )
                if number:  # the first round warms up
                    rate = answer["per_second"] * notifications * each
                    rates.setdefault((notifications, each), []).append(rate)
            stage.clear()
            if number:
                bare.append(_bare(stage, seconds))
    unnest = statistics.median(bare)
    yield plain(CASE, "plain unnest, 100 notifications of 10", unnest, "deliveries/s")
    for (notifications, each), found in rates.items():
        rate = statistics.median(found)
        of = f"{notifications} of {each}" if notifications > 1 else f"a list of {each} recipients"
        figure = plain(CASE, of, rate, "deliveries/s")
        yield figure if each == 1 else at_least(CASE, of, rate, "deliveries/s", WANTED)
        yield plain(CASE, f"{of}, to unnest", rate / unnest, "×")


def _body(notifications: int, each: int) -> bytes:
    recipients = [f"kim{at}@example.com" for at in range(each)]
    if notifications > 1:
        deliveries: list[Any] = [{"channel": "EMAIL", "recipient": each} for each in recipients]
    else:
        deliveries = [{"channel": "EMAIL", "recipients": recipients}]
    item = {**BODY, "deliveries": deliveries}
    return json.dumps({"notifications": [item] * notifications}, ensure_ascii=False).encode()


def _bare(stage: Stage, seconds: float) -> float:
    """Deliveries a second by one connection and one statement a thousand: no checks, no HTTP."""
    recipients = [f"kim{at % 10}@example.com" for at in range(1000)]
    words = {name: BODY[name] for name in ("source", "type", "title", "message")}
    done = 0
    with psycopg.connect(stage.url, autocommit=True) as connection:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            ids = [uuid4() for _ in range(100)]
            connection.execute(
                BARE,
                {
                    **words,
                    "ids": ids,
                    "all_ids": [each for each in ids for _ in range(10)],
                    "recipients": recipients,
                },
                binary=True,
            ).fetchall()
            done += 1000
        return done / (time.perf_counter() - began)
