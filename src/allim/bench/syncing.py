"""The enrolment sync's own work: an LMS that answers at once, and a real database.

Rows are enrolments; each comes with its user's detail, so twice as many records are compared.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg

from allim.base.settings import Environment
from allim.bench.figures import Figure, at_least, at_most, plain
from allim.bench.saying import say
from allim.bench.stage import Stage, ask
from allim.channels.registry import close_channels, make_channels, make_http, make_services
from allim.database.pool import Database
from allim.enrolment.lms.protocol import Course, Roster, StatusRow
from allim.enrolment.model import SyncRequest
from allim.enrolment.settings import EnrolmentSettings
from allim.enrolment.sync import EnrolmentSync

CASE = "sync"
SMALL, LARGE = 1_000, 50_000
COURSE = 1_000
"""Enrolments in a course."""
KIBI = 1024


def run(stage: Stage) -> Iterator[Figure]:
    """Unchanged and wholly changed categories, a small one and a large one."""
    large = _measure(stage, LARGE)
    small = _measure(stage, SMALL)
    unchanged, changed = large["unchanged"], large["changed"]
    yield at_least(CASE, f"{LARGE:,} unchanged", LARGE / unchanged["seconds"], "rows/s", 20_000)
    yield plain(
        CASE, f"{LARGE:,} unchanged, of this process's CPU", LARGE / unchanged["cpu"], "rows/s"
    )
    yield at_most(CASE, "memory of the process, unchanged", unchanged["peak_mib"], "MiB", 150)
    yield at_least(
        CASE,
        f"{LARGE:,} changed, with their deliveries",
        changed["alerts"] / changed["seconds"],
        "alerts/s",
        4_000,
    )
    for name in ("unchanged", "changed"):
        ratio = (large[name]["cpu"] / LARGE) / (small[name]["cpu"] / SMALL)
        yield at_most(CASE, f"{name}: a row's cost, {LARGE:,} to {SMALL:,}", ratio, "×", 1.5)


def _measure(stage: Stage, rows: int) -> dict[str, dict[str, float]]:
    stage.clear()
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute("TRUNCATE source_record, alert, run_log, job_lock")
    with stage.process("allim.bench.syncing", json.dumps({"url": stage.url, "rows": rows})) as one:
        answers = {}
        for what in ("new", "unchanged", "changed"):
            answers[what] = ask(one, what)
            with psycopg.connect(stage.url, autocommit=True) as connection:
                # As autovacuum would in its own time.
                connection.execute("VACUUM ANALYZE source_record, alert, notification, delivery")
        return answers


@dataclass(slots=True)
class _Lms:
    """Answers at once, and says something else of everybody in each generation."""

    rows: int
    generation: int = 0
    kind: str = "bench"

    def session(self) -> _Session:
        return _Session(self)

    async def diagnose(self) -> str | None:
        return None

    async def close(self) -> None:
        return None


class _Session:
    def __init__(self, lms: _Lms) -> None:
        self._lms = lms

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        return None

    async def courses(self, category_id: int) -> Sequence[Course]:
        return [Course(str(at), f"과목 {at}") for at in range(max(self._lms.rows // COURSE, 1))]

    async def roster(
        self, category_id: int, course: Course, *, limit: int, roster: Roster
    ) -> AsyncIterator[StatusRow]:
        said = f"결제완료 {self._lms.generation}"
        for at in range(min(self._lms.rows, COURSE)):
            user = f"user{course.id}-{at}"
            fields = {
                "email": f"{user}@example.com",
                "userName": "김민수",
                "companyName": "알림 주식회사",
                "deptName": "교육팀",
                "jobPosition": "대리",
                "status": "GC",
                "statusmsg": said,
                "gc_date": "2026-11-21 14:00:00",
            }
            yield StatusRow(user, fields, status="GC", status_msg=said, user_name="김민수")

    async def detail(self, category_id: int, row: StatusRow) -> Mapping[str, Any]:
        return {
            "userId": row.user_id,
            "phone": f"010-0000-{self._lms.generation:04}",
            "address": "서울특별시",
            "birthYear": 1990,
        }


async def _serve(url: str, rows: int) -> None:
    """Sync once for each line that comes in, and say what it took."""
    environment = Environment({})
    http = make_http(environment)
    channels = make_channels(environment, make_services(http))
    lms = _Lms(rows)
    async with Database(url, max_size=8) as database:
        sync = EnrolmentSync(database, lms, channels, environment.read(EnrolmentSettings))
        while line := await asyncio.to_thread(sys.stdin.readline):
            lms.generation += line.strip() == "changed"
            _forget_peak()
            cpu, began = time.process_time(), time.perf_counter()
            result = await sync.run(SyncRequest(category_id=1))
            measured = {
                "cpu": time.process_time() - cpu,
                "seconds": time.perf_counter() - began,
                "alerts": result.summary.created_alerts,
                "peak_mib": _peak_mib(),
            }
            say(measured)
    await close_channels(channels)
    await http.close()


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / KIBI


if __name__ == "__main__":
    asyncio.run(_serve(**json.loads(sys.argv[1])))
