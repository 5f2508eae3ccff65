"""What a claim costs beside many waiting and finished rows, and beside an old snapshot."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import psycopg

from allim.bench.draining import BACKLOG, BATCH, claim_of
from allim.bench.figures import Figure, at_most, plain
from allim.bench.stage import Stage
from allim.database.pool import PIN_PLANS
from allim.hub.settling import STATEMENTS

CASE = "claim"
FINISHED = """
INSERT INTO delivery (notification_id, channel, status, attempts, max_attempts, sent_at)
SELECT (SELECT id FROM notification LIMIT 1), 'LOG', 'SUCCESS', 1, 8, now()
  FROM generate_series(1, %s)"""


def run(
    stage: Stage, *, due: int = 1_000_000, finished: int = 5_000_000, claims: int = 40
) -> Iterator[Figure]:
    """The median of claims of 500 on a table that is empty but for them, on a full one, and on
    a full one while another session keeps a snapshot from before the claims."""
    stage.clear()
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute(BACKLOG, [claims * BATCH, "LOG", None])
        connection.execute("ANALYZE")
        empty = _median_claim(connection, claims)
        stage.clear()
        connection.execute(BACKLOG, [1, "OTHER", None])
        for _ in range(10):
            connection.execute(FINISHED, [finished // 10])
        connection.execute(
            BACKLOG.replace("lpad(to_hex(g)", "lpad(to_hex(g + 1)"), [due, "LOG", None]
        )
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
        full = _median_claim(connection, claims)
        with psycopg.connect(stage.url) as reader:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT count(*) FROM api_key")
            pinned = _median_claim(connection, claims * 4)
    yield plain(CASE, f"claim of {BATCH}, otherwise empty table", empty * 1000, "ms")
    yield at_most(CASE, f"beside {due:,} due and {finished:,} finished", full / empty, "×", 1.2)
    yield at_most(CASE, "the same, beside an old snapshot", pinned / empty, "×", 2.0)


def _median_claim(connection: psycopg.Connection[tuple[object, ...]], claims: int) -> float:
    marks: object = [0, 0, 0]
    took = []
    for _ in range(claims):
        began = time.perf_counter()
        with connection.transaction():
            connection.execute(PIN_PLANS)
            rows = connection.execute(STATEMENTS["claim"], claim_of(marks), prepare=True).fetchall()
        took.append(time.perf_counter() - began)
        marks = rows[0][0]
    return statistics.median(took)
