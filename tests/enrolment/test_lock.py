"""One run a category at a time, whoever dies, sleeps or comes at once."""

from __future__ import annotations

import asyncio
from typing import LiteralString

import psycopg
import pytest

from allim.base.errors import Conflict
from allim.enrolment.model import LockActive, SyncResult
from tests.enrolment.conftest import CATEGORY, Academy

EXPIRE: LiteralString = (
    "WITH past AS (UPDATE job_lock SET lock_expires_at = now() - interval '1 second') SELECT"
)
EXPIRED = "lease expired (the process died or stood still, or its lock was taken over)"


class Pause:
    """Stops an LMS at a question until it is let go on."""

    def __init__(self, academy: Academy, at: str) -> None:
        self._at = at
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        academy.lms.step = self

    async def __call__(self, what: str) -> None:
        if what == self._at and not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()


async def test_of_eight_at_once_one_runs(academy: Academy) -> None:
    pause = Pause(academy, "courses")
    calls = [asyncio.create_task(academy.sync()) for _ in range(8)]
    await pause.reached.wait()
    done: set[asyncio.Task[SyncResult]] = set()
    while len(done) < 7:
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.01)
    pause.go_on.set()
    results = await asyncio.gather(*calls, return_exceptions=True)

    refused = [result for result in results if isinstance(result, LockActive)]
    (ran,) = [result for result in results if isinstance(result, SyncResult)]
    assert len(refused) == 7
    assert ran.ok
    assert isinstance(refused[0], Conflict)
    assert (refused[0].code, refused[0].status) == ("job_lock_active", 409)
    assert refused[0].message.startswith("job_lock active (enrolment-sync:303, held by run#")
    assert await academy.rows(
        "SELECT status, count(*), count(finished_at), min(left(error_message, 16))"
        " FROM run_log GROUP BY 1 ORDER BY 1"
    ) == [("FAILED", 7, 7, "job_lock active "), ("SUCCESS", 1, 1, None)]
    assert await academy.rows(
        "SELECT severity, occurrences, resolved FROM alert WHERE alert_type = 'FAILED'"
    ) == [("low", 7, True)]
    assert await academy.rows("SELECT count(*) FROM job_lock") == [(0,)]


async def test_another_category_is_another_lock(academy: Academy) -> None:
    pause = Pause(academy, "courses")
    first = asyncio.create_task(academy.sync())
    await pause.reached.wait()
    assert (await academy.sync(304)).ok
    pause.go_on.set()
    assert (await first).ok


async def test_a_sleeper_whose_lock_was_taken_over_writes_nothing(academy: Academy) -> None:
    pause = Pause(academy, "detail kim01")
    sleeper = asyncio.create_task(academy.sync())
    await pause.reached.wait()
    await academy.rows(EXPIRE)
    academy.lms.enrol(CATEGORY, "447", "park03", {"status": "GC"}, name="박지민")
    assert (await academy.sync()).ok
    written = await everything(academy)

    pause.go_on.set()
    result = await sleeper

    assert (result.ok, result.error) == (False, EXPIRED)
    assert result.summary.created_alerts == 0
    assert await everything(academy) == written
    assert await academy.rows("SELECT status, error_message FROM run_log ORDER BY id LIMIT 1") == [
        ("FAILED", EXPIRED)
    ]
    dead = await academy.rows("SELECT run_id, message FROM alert WHERE alert_type = 'FAILED'")
    ((run_id, message),) = dead
    assert run_id == result.run_id
    assert message == f"[실패] 기수 303 수강 동기화 실패: 끝까지 처리하지 못했습니다 ({EXPIRED})"


async def test_a_lapsed_lock_is_lost_though_nobody_took_it(academy: Academy) -> None:
    pause = Pause(academy, "detail kim01")
    sleeper = asyncio.create_task(academy.sync())
    await pause.reached.wait()
    await academy.rows(EXPIRE)
    pause.go_on.set()

    assert (await sleeper).error == EXPIRED
    assert await academy.rows("SELECT count(*) FROM source_record") == [(0,)]
    assert (await academy.sync()).ok


async def test_nobody_takes_over_between_the_fence_check_and_the_commit(
    academy: Academy,
) -> None:
    pause = Pause(academy, "courses")
    first = asyncio.create_task(academy.sync())
    await pause.reached.wait()
    await academy.rows(EXPIRE)
    async with academy.database.transaction() as tx:
        await tx.execute("SELECT FROM job_lock FOR KEY SHARE")
        with pytest.raises(LockActive):
            await academy.sync()
        renewed = await academy.rows(
            "UPDATE job_lock SET lock_expires_at = now() + interval '1 minute' RETURNING 1"
        )
        assert renewed == [(1,)], "renewals pass"
    pause.go_on.set()
    assert (await first).ok


async def test_the_lock_is_renewed_while_the_event_loop_is_busy(academy: Academy) -> None:
    academy.settings = academy.settings.model_copy(update={"job_lock_seconds": 3.0})
    url = academy.database.url

    async def busy(what: str) -> None:
        if what != "courses":
            return
        with psycopg.connect(url, autocommit=True) as connection:
            ask = "SELECT lock_expires_at FROM job_lock"
            first = connection.execute(ask).fetchone()
            # Blocks the loop: only another thread can make this end.
            while connection.execute(ask).fetchone() == first:
                pass

    academy.lms.step = busy
    assert (await academy.sync()).ok


async def test_a_lock_that_somebody_took_ends_the_run_at_once(academy: Academy) -> None:
    academy.settings = academy.settings.model_copy(update={"job_lock_seconds": 3.0})
    pause = Pause(academy, "roster 447")
    run = asyncio.create_task(academy.sync())
    await pause.reached.wait()
    await academy.rows("WITH gone AS (DELETE FROM job_lock) SELECT")

    result = await run

    assert (result.ok, result.error) == (False, EXPIRED)
    assert not pause.go_on.is_set()


async def test_a_database_that_goes_away_fails_the_run_truly(academy: Academy) -> None:
    academy.lms.enrol(CATEGORY, "448", "park03", {"status": "GC"})
    academy.settings = academy.settings.model_copy(update={"enrolment_course_concurrency": 1})
    url = academy.database.url

    async def cut(what: str) -> None:
        if what == "detail park03":
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    academy.lms.step = cut
    result = await academy.sync()

    assert (result.ok, result.error) == (False, "internal error: DatabaseUnavailable")
    assert (result.summary.courses_processed, result.summary.new_records) == (1, 4)
    academy.lms.step = None
    again = await academy.sync()
    assert (again.ok, again.summary.new_records) == (True, 2)


async def everything(academy: Academy) -> list[tuple[object, ...]]:
    """What the chain consists of, with the versions of its rows."""
    return [
        *await academy.rows("SELECT source_id, revision, xmin::text FROM source_record ORDER BY 1"),
        *await academy.rows("SELECT id, source_id, xmin::text FROM alert ORDER BY 1"),
        *await academy.rows("SELECT id, row_key, xmin::text FROM delivery ORDER BY 1"),
    ]


async def test_a_run_stopped_while_it_takes_its_lock_gives_it_back(academy: Academy) -> None:
    async with (
        await psycopg.AsyncConnection.connect(academy.database.url) as other,
        await psycopg.AsyncConnection.connect(academy.database.url, autocommit=True) as watch,
    ):
        await other.execute("LOCK TABLE run_log IN EXCLUSIVE MODE")
        run = asyncio.create_task(academy.sync())
        waiting = (
            "SELECT FROM pg_locks WHERE NOT granted AND relation = 'run_log'::regclass"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        while not await (await watch.execute(waiting)).fetchall():
            await asyncio.sleep(0.01)
        run.cancel()
        await asyncio.sleep(0)
        await other.rollback()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await academy.rows("SELECT count(*) FROM job_lock") == [(0,)]
    assert await academy.rows("SELECT status, left(error_message, 7) FROM run_log") == [
        ("FAILED", "stopped")
    ]
    assert (await academy.sync()).ok
