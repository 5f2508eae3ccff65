"""The page of the enrolment sync."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from allim.database.pool import Database
from allim.enrolment.calls import SyncCalls
from allim.enrolment.model import LockActive, SyncRequest, SyncResult
from allim.enrolment.sync import EnrolmentSync
from allim.hub.audit import AuditLog, AuditOutcome
from tests.console.conftest import OPERATE, READ, Open, Visitor

SAMPLE = {"LMS_KIND": "sample"}


async def run_twice(visitor: Visitor) -> None:
    """The sample changes from run to run: after the second there are changes."""
    await visitor.get("/enrolment")
    for _ in range(2):
        ended = await visitor.post("/enrolment/run", category_id="303")
        assert re.search(r"Run \d+ is done", ended.words), ended.words


async def test_a_run_is_begun_and_shown_with_what_it_told(
    open_console: Open, database: Database
) -> None:
    visitor = await open_console(**SAMPLE)
    await run_twice(visitor)

    listed = await visitor.get("/enrolment")
    rows = await database.fetch(
        "SELECT id, changed_records, created_alerts FROM run_log ORDER BY 1"
    )
    assert len(re.findall(r'href="[^"]*/enrolment/runs/\d+"', listed.text)) == 2
    assert "No run is under way" in listed.words
    shown = await visitor.get(f"/enrolment/runs/{rows[-1][0]}")
    assert rows[-1][1] > 0
    assert shown.text.count("<tr>") - 1 == rows[-1][2], "the alerts of this run, and no others"
    assert "→" in shown.text
    [second, first] = (await AuditLog(database).list())[0]
    assert (first.actor, first.action, first.subject) == ("local", "sync.run", "category 303")
    assert {first.outcome, second.outcome} == {AuditOutcome.DONE}


async def test_without_an_lms_the_button_says_so(visitor: Visitor) -> None:
    await visitor.get("/enrolment")
    refused = await visitor.post("/enrolment/run", category_id="303")
    assert "no LMS is set up" in refused.words
    cases: list[dict[str, Any]] = [{}, {"category_id": "x"}, {"category_id": "-1"}]
    for wrong in cases:
        answer = await visitor.post("/enrolment/run", **wrong)
        assert "category_id" in answer.words


async def test_a_category_that_is_locked_is_refused_and_its_lock_is_shown(
    open_console: Open, database: Database
) -> None:
    visitor = await open_console(**SAMPLE)
    await database.fetch(
        "INSERT INTO job_lock (job_name, locked_by, lock_expires_at, run_id, fence) VALUES"
        " ('enrolment-sync:303', 'host-7', now() + interval '1 h', 7, 1),"
        " ('enrolment-sync:404', 'host-8', now() - interval '1 h', 8, 2) RETURNING 1"
    )
    page = await visitor.get("/enrolment")
    assert "host-7" in page.text
    assert "ran out" in page.words
    refused = await visitor.post("/enrolment/run", category_id="303")
    assert "job_lock active" in refused.words
    [entry] = (await AuditLog(database).list())[0]
    assert (entry.outcome, entry.detail["code"]) == (AuditOutcome.REFUSED, "job_lock_active")


async def test_a_run_that_takes_long_goes_on_without_its_caller() -> None:
    go_on, calls = asyncio.Event(), 0

    class Slow(EnrolmentSync):
        def __init__(self) -> None:
            pass

        async def run(self, request: SyncRequest, **_: object) -> SyncResult:
            nonlocal calls
            calls += 1
            await go_on.wait()
            raise LockActive(1, "job_lock active")

    sync_calls = SyncCalls(Slow())
    assert await sync_calls.begin(SyncRequest(category_id=1), patience=0.0) is None
    go_on.set()
    await sync_calls.close()
    assert calls == 1


async def test_alerts_are_filtered_and_dealt_with(open_console: Open, database: Database) -> None:
    visitor = await open_console(**SAMPLE)
    await run_twice(visitor)
    [(alert,)] = await database.fetch(
        "SELECT id FROM alert WHERE alert_type = 'CHANGED' ORDER BY id LIMIT 1"
    )
    changed = await visitor.get("/enrolment/alerts?type=CHANGED&state=open")
    await visitor.post(f"/enrolment/alerts/{alert}/resolve")

    left = await visitor.get("/enrolment/alerts?type=CHANGED&state=open")
    assert changed.text.count("<tr>") == left.text.count("<tr>") + 1
    dealt = await visitor.get("/enrolment/alerts?state=resolved")
    assert "local" in dealt.words
    assert (await visitor.get("/enrolment/alerts?severity=none&category=x")).status == 200
    missing = await visitor.post("/enrolment/alerts/999/resolve")
    assert "there is no alert 999" in missing.words


async def test_a_schedule_is_made_paused_fired_and_removed(
    visitor: Visitor, database: Database
) -> None:
    await visitor.get("/enrolment/schedules")
    wrong = await visitor.post("/enrolment/schedules", name="autumn", cron="every day")
    assert wrong.status == 422
    assert 'value="autumn"' in wrong.text
    assert "cron" in wrong.words
    made = await visitor.post(
        "/enrolment/schedules",
        name="autumn",
        cron="*/10 * * * *",
        job="enrolment-sync",
        category_id="303",
    )
    assert "autumn" in made.words
    taken = await visitor.post(
        "/enrolment/schedules", name="autumn", cron="0 9 * * *", category_id="303"
    )
    assert taken.status == 409
    [(number, enabled)] = await database.fetch("SELECT id, enabled FROM schedule")
    assert enabled
    path = f"/enrolment/schedules/{number}"
    paused = await visitor.post(f"{path}/pause")
    assert f"Schedule {number} is paused" in paused.words
    await visitor.post(f"{path}/fire")
    again = await visitor.post(f"{path}/fire")
    assert "already" in again.words
    assert "asked for" in (await visitor.get(path)).words
    await visitor.post(f"{path}/resume")
    await visitor.post(f"{path}/remove")
    assert await database.fetch("SELECT FROM schedule") == []
    actions = [entry.action for entry in (await AuditLog(database).list())[0]]
    done = ["remove", "resume", "fire", "fire", "pause", "create", "create", "create"]
    assert actions == [f"schedule.{what}" for what in done], "what was refused is there too"


async def test_whoever_only_reads_has_no_buttons_and_no_way_round(guarded: Visitor) -> None:
    await guarded.log_in(READ)
    page = await guarded.get("/enrolment/schedules")
    assert "Create the schedule" not in page.text
    for path in ("/enrolment/run", "/enrolment/schedules", "/enrolment/alerts/1/resolve"):
        assert (await guarded.post(path)).status == 403
    await guarded.log_in(OPERATE)
    assert "Run now" in (await guarded.get("/enrolment")).text
