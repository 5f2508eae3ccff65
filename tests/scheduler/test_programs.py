"""Schedules run by real programs, and handled from the shell."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest

from allim.testing.lms.kvca import ROSTER, FakeKvca
from tests.programs import Program, Start, allim

SYNC = {
    "name": "autumn",
    "job": "enrolment-sync",
    "parameters": {"category_id": 303},
    "cron": "0 0 1 1 *",
}


async def fired(api: Program, schedule: int, status: str) -> dict[str, Any]:
    """Wait until the newest fire of a schedule has a status."""
    async with asyncio.timeout(60):
        while True:
            _, body = await api.call("GET", f"/schedules/{schedule}/fires")
            if body["items"] and body["items"][0]["status"] == status:
                found: dict[str, Any] = body["items"][0]
                return found
            await asyncio.sleep(0.02)


async def test_up_runs_what_is_scheduled(start: Start, database_url: str) -> None:
    up = await start("up", DATABASE_URL=database_url, LMS_KIND="sample")
    _, made = await up.call("POST", "/schedules", json=SYNC)
    _, chain = await up.call(
        "POST",
        "/schedules",
        json={**SYNC, "name": "chain", "job": "outbox-dispatch", "parameters": {}},
    )
    for schedule in (made["id"], chain["id"]):
        status, _ = await up.call("POST", f"/schedules/{schedule}/fire")
        assert status == 202
    fire = await fired(up, made["id"], "SUCCESS")
    await fired(up, chain["id"], "SUCCESS")

    _, run = await up.call("GET", f"/runs/{fire['run_id']}")
    assert (run["trigger_type"], run["status"]) == ("SCHEDULER", "SUCCESS")
    assert run["summary"]["new_records"] == 20


async def test_a_scheduler_by_itself_and_one_that_is_off(
    start: Start, place: Path, database_url: str
) -> None:
    async with FakeKvca() as kvca:
        kvca.add_course(303, 447)
        kvca.enrol(447, "kim")
        settings = {"DATABASE_URL": database_url, **kvca.environment()}
        up = await start("up", SCHEDULER_ENABLED="false", **settings)
        added = await allim("schedule", "add", "0 0 1 1 *", "--category", "303", cwd=place,
                            DATABASE_URL=database_url)  # fmt: skip
        assert added.out.startswith("enrolment-sync-303: next ")
        assert added.out.endswith("-01-01 00:00:00\n")
        name = "enrolment-sync-303"
        asked = await allim("schedule", "fire", name, cwd=place, DATABASE_URL=database_url)
        assert asked.code == 0
        await fired(up, 1, "QUEUED")

        gate = kvca.hold(ROSTER)
        alone = await start(
            "schedule", "run", until="the scheduler runs", ALLIM_SHUTDOWN_SECONDS="0.1", **settings
        )
        await gate.reached()
        assert await alone.terminate() == 0
        # Its job was interrupted, and is taken over.
        _, body = await up.call("GET", "/runs")
        assert [run["status"] for run in body["items"]] == ["FAILED"]
        kvca.heal()
        await start("schedule", "run", until="the scheduler runs", **settings)
        fire = await fired(up, 1, "SUCCESS")
        assert (fire["attempts"], fire["run_id"]) == (2, 2)

    listed = await allim("schedule", "list", cwd=place, DATABASE_URL=database_url)
    assert "last: " in listed.out
    assert "SUCCESS (asked for) in " in listed.out
    fires = await allim("schedule", "fires", name, cwd=place, DATABASE_URL=database_url)
    assert fires.out.count("\n") == 1
    paused = await allim("schedule", "pause", "1", cwd=place, DATABASE_URL=database_url)
    assert paused.out == f"{name}: paused\n"
    resumed = await allim("schedule", "resume", name, cwd=place, DATABASE_URL=database_url)
    assert "next" in resumed.out
    removed = await allim("schedule", "remove", name, cwd=place, DATABASE_URL=database_url)
    assert removed.code == 0
    gone = await allim("schedule", "fire", name, cwd=place, DATABASE_URL=database_url)
    assert (gone.code, gone.err) == (2, f"allim: there is no schedule {name!r}\n")


async def test_what_is_typed_wrong_is_named_as_it_was_typed(place: Path, database_url: str) -> None:
    ended = await allim(
        "schedule", "add", "61 * * * *", "--timezone", "Seoul",
        cwd=place, DATABASE_URL=database_url,
    )  # fmt: skip
    assert ended.code == 2
    assert ended.err == (
        "allim: cron: has a minute that cannot be; --timezone: is not a time zone like Asia/Seoul"
        " or UTC; --category: is required\n"
    )


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("daily", "--category", "303"), "cron: must have five fields"),
        (("* * * * *", "--category", "303", "--name", ""), "--name: must have at least 1"),
        (("* * * * *", "--category", "303", "--name", "a b"), "--name: must begin with a letter"),
        (("* * * * *", "--job", "outbox-dispatch", "--max-users", "3"), "--max-users: is not for"),
    ],
)
async def test_what_is_wrong_is_said_in_words(
    place: Path, database_url: str, typed: tuple[str, ...], says: str
) -> None:
    ended = await allim("schedule", "add", *typed, cwd=place, DATABASE_URL=database_url)
    assert ended.code == 2
    assert ended.err.startswith(f"allim: {says}"), ended.err


async def test_the_doctor_sees_schedules_that_nobody_runs(place: Path, database_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "LMS_KIND": "sample"}
    await allim("schedule", "add", "* * * * *", "--category", "303", cwd=place, **settings)
    assert "1, none is late" in (await allim("doctor", cwd=place, **settings)).out
    settings["LMS_KIND"] = ""
    ended = await allim("doctor", cwd=place, **settings)
    assert "enrolment-sync-303 has no LMS to look at" in ended.out
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE schedule SET decided_until = now() - interval '1 hour'")
    ended = await allim("doctor", cwd=place, **settings)
    assert ended.code == 1
    assert "no scheduler has come to enrolment-sync-303 since 20" in ended.out
