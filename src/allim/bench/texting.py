"""Texts by a messaging worker to a Solapi that answers in 50 ms, from the box and from a queue."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise

import psycopg

from allim.bench.draining import settled_per_second
from allim.bench.figures import Figure, at_least, at_most, plain
from allim.bench.footprint import cpu_seconds, resident
from allim.bench.stage import Stage, ask

CASE = "text"
LEAST = 500
PATIENCE_SECONDS = 120.0
IDLE_SECONDS = 50.0
TENANT = """
WITH one AS (
    INSERT INTO tenant (id, name, balance) VALUES (%s, 'bench', 10000000) RETURNING id, balance)
INSERT INTO tenant_ledger (tenant_id, kind, amount, balance_after)
SELECT id, 'opening', balance, balance FROM one"""
BACKLOG = """
WITH n AS (
    INSERT INTO notification (id, tenant_id, source, type, message)
    SELECT lpad(to_hex(g), 32, '0')::uuid, %(tenant)s, 'bench', 'BENCH', '내일 14:30 예약입니다.'
      FROM generate_series(1, %(count)s) AS g RETURNING id)
INSERT INTO delivery (notification_id, channel, recipient, max_attempts, tenant_id, guard)
SELECT id, 'SMS', '0101' || lpad((row_number() OVER ())::text, 7, '0'), 3, %(tenant)s,
       jsonb_build_object('reservation_id', row_number() OVER ())
  FROM n ORDER BY id"""


def run(stage: Stage, *, texts: int = 4000, jobs: int = 3000) -> Iterator[Figure]:
    """A backlog of paid texts with reservations; jobs from a queue; then nothing to do."""
    stage.clear()
    with stage.process("allim.bench.text_stand_ins") as stand_ins:
        assert stand_ins.stdout is not None
        settings = json.loads(stand_ins.stdout.readline())
        _fill(stage, texts)
        with stage.process("allim", "messaging-worker", **settings) as worker:
            _wait_until_accepted(stage, worker, texts)
            spent = cpu_seconds(worker.pid)
            seen = ask(stand_ins, "0")
            _check(seen, texts)
            per_second = settled_per_second(stage, "ACCEPTED")
            yield at_least(CASE, "from the box, 50 ms a call", per_second, "texts/s", LEAST)
            yield plain(CASE, "texts in a group", texts / seen["groups"], "texts")
            yield plain(CASE, "processor, start included", spent / texts * 1000, "ms a text")
            began = time.perf_counter()
            ask(stand_ins, str(jobs))
            _wait_until_accepted(stage, worker, texts + jobs)
            took = time.perf_counter() - began
            yield at_least(CASE, "from the queue to Solapi", jobs / took, "texts/s", LEAST)
            spent = cpu_seconds(worker.pid) - spent
            yield plain(CASE, "processor, by the queue", spent / jobs * 1000, "ms a text")
            _check(ask(stand_ins, "0"), texts + jobs)
            yield at_most(CASE, "messaging-worker, resident", resident(worker.pid), "MB", 120)
            yield from _idle(worker, stand_ins)


def _idle(worker: subprocess.Popen[str], stand_ins: subprocess.Popen[str]) -> Iterator[Figure]:
    known = len(ask(stand_ins, "0")["receives"])
    before = cpu_seconds(worker.pid)
    time.sleep(IDLE_SECONDS)
    share = (cpu_seconds(worker.pid) - before) / IDLE_SECONDS * 100
    receives = ask(stand_ins, "0")["receives"][known - 1 :]
    gaps = [later - earlier for earlier, later in pairwise(receives)]
    yield at_least(CASE, "idle, between two calls to SQS", min(gaps, default=0.0), "s", 20)
    yield at_most(CASE, "messaging-worker, idle", share, "% of a core", 1.0)


def _fill(stage: Stage, texts: int) -> None:
    tenant = int(time.time())
    with psycopg.connect(stage.url) as connection:
        connection.execute(TENANT, [tenant])
        connection.execute(BACKLOG, {"tenant": tenant, "count": texts})
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute("ANALYZE")
        connection.execute("CHECKPOINT")


def _wait_until_accepted(stage: Stage, worker: subprocess.Popen[str], texts: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        taken = "SELECT count(*) FROM delivery WHERE status IN ('ACCEPTED', 'SUCCESS')"
        if stage.fetch(taken)[0][0] >= texts:
            return
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended with {worker.returncode}")
        time.sleep(0.05)
    states = stage.fetch("SELECT status, error_code, count(*) FROM delivery GROUP BY 1, 2")
    raise TimeoutError(f"not sent within {PATIENCE_SECONDS:g} s: {states}")


def _check(seen: dict[str, int], texts: int) -> None:
    if (seen["sent"], seen["doubled"]) != (texts, 0):
        raise RuntimeError(f"of {texts} texts {seen['sent']} went out, {seen['doubled']} twice")
