"""`POST /jobs/enrolment-sync`, as schedulers outside call it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from allim.base.errors import Overloaded
from allim.enrolment import calls
from allim.enrolment.model import SyncRequest
from allim.testing.lms.faults import Fault
from allim.testing.lms.kvca import COURSES, DETAIL, ROSTER, FakeKvca
from tests.enrolment.routes.conftest import CATEGORY, COURSE, JOB, Office, Open

DOCUMENTED: dict[str, Any] = {
    "category_id": CATEGORY,
    "trigger_type": "SCHEDULER",
    "max_categories": 1,
    "max_users_per_course": 500,
}


async def test_it_answers_as_documented(office: Office, kvca: FakeKvca) -> None:
    await office.sync()
    kvca.change(COURSE, "user07", status="GC", gc_date="2026-03-05 14:20:00")

    answer = await office.api.post(JOB, json=DOCUMENTED)

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json)[:2] == ["ok", "summary"]
    assert answer.json == {
        "ok": True,
        "summary": {
            "categories_processed": 1,
            "courses_processed": 1,
            "status_rows_processed": 89,
            "details_processed": 89,
            "source_records_upserted": 178,
            "new_records": 0,
            "changed_records": 1,
            "created_alerts": 1,
            "failed_courses": 0,
            "failed_details": 0,
            "truncated_courses": 0,
            "missing_records": 0,
        },
        "run_id": 2,
    }
    rows = await office.database.fetch("SELECT trigger_type, status FROM run_log ORDER BY id")
    assert rows == [("MANUAL", "SUCCESS"), ("SCHEDULER", "SUCCESS")]


async def test_what_was_left_out_is_said_beside_the_summary(office: Office, kvca: FakeKvca) -> None:
    kvca.enrol(COURSE, "nobody", userId="", email="")

    answer = await office.sync()

    assert (answer.status, answer.json["ok"]) == (200, True)
    assert answer.json["warning"] == (
        "incomplete: course #447: rows left out: without userId and email (1)"
    )
    run = (await office.api.get(f"/runs/{answer.json['run_id']}")).json
    assert (run["status"], run["error_message"]) == ("SUCCESS", answer.json["warning"])


@pytest.mark.parametrize(
    ("fault", "begins"),
    [
        (Fault.status(409), "upstream HTTP 409 from "),
        (Fault.status(500), "upstream HTTP 500 from "),
        (Fault.hang(), "timeout: "),
    ],
)
async def test_a_run_that_failed_is_502_with_true_counts(
    open_office: Open, kvca: FakeKvca, fault: Fault, begins: str
) -> None:
    kvca.add_course(CATEGORY, 448, "둘째")
    kvca.enrol(448, "only")
    kvca.fail(ROSTER, fault, times=None, where={"courseid": COURSE})
    office = await open_office(LMS_TIMEOUT_SECONDS="0.3")

    answer = await office.sync(trigger_type="RETRY")

    assert answer.status == 502
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json
    assert set(body) == {"ok", "error", "summary", "run_id"}
    assert not body["ok"]
    assert body["error"].startswith(begins)
    summary = body["summary"]
    assert (summary["courses_processed"], summary["failed_courses"]) == (1, 1)
    assert summary["status_rows_processed"] == 1
    assert await office.runs() == [("FAILED", body["error"])]


async def test_of_eight_calls_one_runs_and_seven_are_refused(
    office: Office, kvca: FakeKvca
) -> None:
    gate = kvca.hold(COURSES)
    asked = [asyncio.create_task(office.sync()) for _ in range(8)]
    await gate.reached()
    async with asyncio.timeout(60):
        while sum(call.done() for call in asked) < 7:
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
    gate.open()

    answers = [await call for call in asked]

    assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    for answer in answers:
        if answer.status == 409:
            assert set(answer.json) == {"ok", "error", "run_id"}
            assert not answer.json["ok"]
            assert answer.json["error"].startswith("job_lock active (")
    assert await office.locks() == 0
    # Another category is another lock.
    kvca.add_course(304, 500)
    assert (await office.sync(category_id=304)).status == 200


WRONG: list[tuple[Any, list[str]]] = [
    ({}, ["/category_id"]),
    ({"category_id": "303"}, ["/category_id"]),
    ({"category_id": 0}, ["/category_id"]),
    ({"category_id": 2**63}, ["/category_id"]),
    ({"category_id": True}, ["/category_id"]),
    ({"category_id": 303, "trigger_type": "CRON"}, ["/trigger_type"]),
    (
        {"category_id": None, "max_users_per_course": 0, "max_categories": -1, "x": 1},
        ["/category_id", "/max_categories", "/max_users_per_course", "/x"],
    ),
    ([], [""]),
]


async def test_every_bad_field_is_named_in_the_jobs_own_shape(office: Office) -> None:
    for body, places in WRONG:
        answer = await office.api.post(JOB, json=body)
        assert answer.status == 422
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json["ok"] is False
        assert sorted(error["place"] for error in answer.json["errors"]) == places
        assert all(place in answer.json["error"] for place in places)
    assert await office.runs() == []


AS_JSON = {"headers": {"Content-Type": "application/json"}}
NO_JSON: list[tuple[dict[str, Any], int]] = [
    ({"data": b"{", **AS_JSON}, 400),
    ({"data": b"\xff", **AS_JSON}, 400),
    ({"data": b"category_id=303"}, 415),
    ({}, 422),
]


async def test_what_is_no_json_is_refused(office: Office) -> None:
    for more, status in NO_JSON:
        answer = await office.api.post(JOB, **more)
        assert answer.status == status, answer.body


async def test_without_an_lms_it_says_what_to_set(open_office: Open) -> None:
    office = await open_office(LMS_KIND="")
    answer = await office.sync()
    assert answer.status == 503
    assert answer.json["ok"] is False
    assert "set LMS_KIND" in answer.json["error"]


async def test_who_hangs_up_does_not_end_the_run(office: Office, kvca: FakeKvca) -> None:
    gate = kvca.hold(ROSTER)
    async with aiohttp.ClientSession() as impatient:
        call = asyncio.create_task(
            impatient.post(office.api.url + JOB, json={"category_id": CATEGORY})
        )
        await gate.reached()
        call.cancel()
        await asyncio.wait([call])
    assert (await office.sync()).status == 409, "it goes on"

    gate.open()
    await office.until_ended(2)

    assert [status for status, _ in await office.runs()] == ["SUCCESS", "FAILED"]
    assert (await office.sync()).json["summary"]["new_records"] == 0


async def test_a_server_that_stops_releases_the_lock_and_says_so(
    open_office: Open, kvca: FakeKvca, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "STOP_SECONDS", 0.0)
    office = await open_office(LMS_TIMEOUT_SECONDS="60")
    gate = kvca.hold(DETAIL)
    call = asyncio.create_task(office.sync())
    await gate.reached()

    office.calls.stop()
    answer = await call

    assert answer.status == 503
    assert answer.json["error"].startswith("Allim is being stopped")
    await office.until_ended()
    ((status, error),) = await office.runs()
    assert status == "FAILED"
    assert error is not None
    assert error.startswith("stopped: ")
    assert (await office.sync()).status == 503


async def test_a_run_whose_caller_is_gone_ends_with_the_server(
    open_office: Open, kvca: FakeKvca
) -> None:
    office = await open_office(LMS_TIMEOUT_SECONDS="60")
    gate = kvca.hold(DETAIL)
    run = asyncio.create_task(office.calls.run(SyncRequest(category_id=CATEGORY)))
    await gate.reached()

    await office.stop()

    await office.until_ended()
    assert [status for status, _ in await office.runs()] == ["FAILED"]
    with pytest.raises(Overloaded):
        await run


async def test_a_slow_lms_holds_up_nobody_else(office: Office, kvca: FakeKvca) -> None:
    gate = kvca.hold(ROSTER)
    call = asyncio.create_task(office.sync())
    await gate.reached()
    assert (await office.api.get("/health/live")).status == 200
    ((running,),) = [[run] for run in (await office.api.get("/runs")).json["items"]]
    assert (running["status"], running["finished_at"]) == ("RUNNING", None)
    gate.open()
    assert (await call).status == 200
