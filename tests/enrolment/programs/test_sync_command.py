"""`allim sync` from the shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from allim.testing.lms.kvca import ROSTER, FakeKvca
from tests.programs import allim, clean_environment

COURSE = 447


@pytest.fixture
async def kvca() -> AsyncIterator[FakeKvca]:
    async with FakeKvca() as kvca:
        kvca.add_course(303, COURSE)
        kvca.enrol(COURSE, "kim")
        yield kvca
        kvca.heal()


async def test_a_sync_prints_what_it_did(place: Path, database_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "LMS_KIND": "sample"}
    first = await allim("sync", "--category", "303", cwd=place, **settings)
    assert first.code == 0, first.err
    assert "new_records 20\n" in first.out
    assert first.out.endswith("run 1: SUCCESS\n")
    assert first.err.splitlines()[-1] == "run 1: 2 of 2 courses, 11 enrolments"

    second = await allim(
        "sync", "--category", "303", "--trigger", "retry", "--max-users", "500",
        cwd=place, **settings,
    )  # fmt: skip
    assert second.code == 0
    assert "changed_records 4\n" in second.out

    unknown = await allim("sync", "--category", "5", cwd=place, **settings)
    assert unknown.code == 1
    assert unknown.err.splitlines()[-1].startswith('allim: run 3 failed: unknown category "5"')
    with psycopg.connect(database_url) as connection:
        runs = connection.execute("SELECT trigger_type, status FROM run_log ORDER BY id").fetchall()
    assert runs == [("MANUAL", "SUCCESS"), ("RETRY", "SUCCESS"), ("MANUAL", "FAILED")]


async def test_what_is_not_set_up_is_a_settings_error(place: Path, database_url: str) -> None:
    for settings, says in (
        ({}, "set LMS_KIND to kvca, moodle or sample"),
        ({"LMS_KIND": "kvca"}, "LMS_KIND=kvca needs LMS_BASE_URL, LMS_USERNAME, LMS_PASSWORD"),
    ):
        ended = await allim(
            "sync", "--category", "303", cwd=place, DATABASE_URL=database_url, **settings
        )
        assert ended.code == 2
        assert says in ended.err.splitlines()[-1]


async def test_a_number_that_no_category_has_is_refused(place: Path, database_url: str) -> None:
    ended = await allim("sync", "--category", str(2**63), cwd=place, DATABASE_URL=database_url)
    assert ended.code == 2
    assert "at most" in ended.err
    assert "Traceback" not in ended.err


def test_on_a_terminal_the_log_keeps_off_the_bar(place: Path, database_url: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "allim", "sync", "--category", "999"],
        cwd=place,
        env=clean_environment(DATABASE_URL=database_url, LMS_KIND="sample", TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # The other end is closed.
            while piece := os.read(ours, 65536):
                shown += piece
    os.close(ours)
    assert "asking the LMS" in shown.decode()
    colours = rb"(?:\x1b\[[0-9;]*m)*"
    assert re.search(rb"(?:\n|\r|\x1b\[2K)" + colours + rb"\d\d:\d\d:\d\d", shown), shown


async def test_one_at_a_time_and_an_interrupt_releases_the_lock(
    place: Path, database_url: str, kvca: FakeKvca
) -> None:
    settings = {"DATABASE_URL": database_url, **kvca.environment()}
    gate = kvca.hold(ROSTER)
    held = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "allim", "sync", "--category", "303",
        cwd=place,
        env=clean_environment(**settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await gate.reached()

    refused = await allim("sync", "--category", "303", cwd=place, **settings)
    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith("allim: job_lock active (")

    held.send_signal(signal.SIGINT)
    _, err = await held.communicate()
    assert held.returncode == 130
    assert err.decode().splitlines()[-1] == (
        "allim: interrupted: the run is FAILED, its lock is released"
    )
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM job_lock").fetchone() == (0,)
        runs = connection.execute(
            "SELECT status, split_part(error_message, ' ', 1) FROM run_log ORDER BY id"
        ).fetchall()
    assert runs == [("FAILED", "stopped:"), ("FAILED", "job_lock")]
    gate.open()
    assert (await allim("sync", "--category", "303", cwd=place, **settings)).code == 0
