"""A process is killed at each moment of a run, or stopped past its lease: nothing is lost, nothing
is told twice."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from allim.database.pool import Database
from tests.enrolment.reference import Reference
from tests.enrolment.sync_process import lms_of, nothing, sync
from tests.enrolment.test_any_history import check

ROOT = Path(__file__).parents[2]
EXPIRED = "lease expired (the process died or stood still, or its lock was taken over)"


async def start(**options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.enrolment.sync_process",
        json.dumps(options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


def known(category: int) -> Reference:
    """What is true after a first run and one with the changes."""
    reference = Reference(category)
    for changed in (False, True):
        reference.sync(lms_of(category, changed=changed), None)
    return reference


@pytest.mark.timeout(280)
async def test_a_run_killed_at_any_moment_loses_and_doubles_nothing(database: Database) -> None:
    process = await start(database=database.url, mode="kill everywhere")
    out, _ = await process.communicate()
    said = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 0, said[-3:]

    killed = [line for line in said if "killed" in line]
    assert len(killed) > 30
    assert {line["killed"] for line in killed} >= {
        "before begin",
        "after a statement source_record",
        "after a statement alert (",
        "before commit",
        "after commit",
        "after a look",
        "courses",
        "roster 447",
        "detail kim01",
    }
    assert [line for line in said if line.get("ok") is False or line.get("error")] == []
    for line in said:
        if "retried" in line:
            await check(database, known(line["retried"]))
    buried = await database.fetch(
        "SELECT count(*) FROM run_log WHERE status = 'FAILED' AND error_message LIKE 'lease exp%'"
    )
    running = await database.fetch("SELECT count(*) FROM run_log WHERE status = 'RUNNING'")
    locks = await database.fetch("SELECT count(*) FROM job_lock")
    assert buried[0][0] > 20
    assert (running, locks) == ([(0,)], [(0,)])


@pytest.mark.parametrize("moment", ["detail park03", "after a statement source_record"])
async def test_a_process_that_stands_still_past_its_lease_writes_nothing(
    moment: str, database: Database
) -> None:
    category = 7
    assert (await sync(database.url, lms_of(category, changed=False), category, nothing)).ok
    sleeper = await start(database=database.url, mode="stop", category=category, at=moment)
    try:
        assert sleeper.stdout is not None
        assert sleeper.stdin is not None
        assert json.loads(await sleeper.stdout.readline()) == {"at": moment}
        sleeper.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(60):
            while not await database.fetch(
                "SELECT FROM job_lock WHERE lock_expires_at < clock_timestamp()"
            ):
                await asyncio.sleep(0.05)

        assert (await sync(database.url, lms_of(category, changed=True), category, nothing)).ok
        await check(database, known(category))

        sleeper.stdin.write(b"\n")
        sleeper.send_signal(signal.SIGCONT)
        end = json.loads(await sleeper.stdout.readline())
        assert (end["ok"], end["error"]) == (False, EXPIRED)
        await sleeper.wait()
        await check(database, known(category))
    finally:
        if sleeper.returncode is None:
            sleeper.send_signal(signal.SIGCONT)
            sleeper.kill()
            await sleeper.wait()
