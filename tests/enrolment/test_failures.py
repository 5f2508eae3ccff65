"""What goes wrong is told truthfully, costs nothing that was good, and is told once."""

from __future__ import annotations

import asyncio

import pytest

from allim.base.errors import NotFound
from allim.enrolment.alerts import AlertFilter, Alerts
from allim.enrolment.lms.protocol import FailureGroup, LmsError
from allim.enrolment.model import AlertType, Progress, RunStatus, Severity, SyncRequest
from allim.enrolment.runs import RunFilter, Runs
from tests.enrolment.conftest import CATEGORY, Academy

GROUPING = """
select case
    when error_message ilike '%% 409 %%' then 'HTTP_409'
    when error_message ilike '%% 5__ %%' then 'HTTP_5XX'
    when error_message ilike '%%timeout%%' then 'TIMEOUT'
    when error_message ilike '%%job_lock active%%' then 'LOCK_CONFLICT'
    else 'OTHER' end as error_group
from run_log where status = 'FAILED' order by id"""


async def test_a_failing_course_stops_no_other(academy: Academy) -> None:
    academy.lms.enrol(CATEGORY, "448", "park03", {"status": "GC"})
    academy.lms.enrol(CATEGORY, "448", "choi04", {"status": "GC"})
    academy.lms.breaks["448"] = 1

    result = await academy.sync()

    assert not result.ok
    assert result.error == "upstream HTTP 503 from memory://lms"
    summary = result.summary
    assert (summary.courses_processed, summary.failed_courses) == (1, 1)
    assert (summary.status_rows_processed, summary.new_records, summary.created_alerts) == (2, 4, 5)
    assert await academy.rows("SELECT DISTINCT course_id FROM source_record ORDER BY 1") == [
        ("447",),
        (None,),
    ]
    ((message, row_key),) = await academy.rows(
        "SELECT a.message, d.row_key FROM alert a"
        " JOIN delivery d USING (notification_id) WHERE alert_type = 'FAILED'"
    )
    assert message == (
        "[실패] 기수 303 수강 동기화 실패: LMS 서버 오류 또는 점검 중입니다"
        " (upstream HTTP 503 from memory://lms)"
    )
    assert row_key == f"run:303:HTTP_5XX:FAILED:r{result.run_id}"


async def test_a_failing_detail_changes_nothing_of_its_record(academy: Academy) -> None:
    await academy.sync()
    academy.lms.no_detail.add("kim01")
    academy.lms.users["lee02"] = {"user": "lee02", "phone": "1"}

    result = await academy.sync()

    assert not result.ok
    assert (result.summary.failed_details, result.summary.details_processed) == (1, 1)
    assert [(a[0], a[2]) for a in (await academy.alerts())[4:]] == [
        ("CHANGED", "303:lee02"),
        ("FAILED", "303:HTTP_5XX"),
    ]
    academy.lms.no_detail.clear()
    assert (await academy.sync()).summary.created_alerts == 0


async def test_repeats_of_a_failure_are_counted_in_one_alert(academy: Academy) -> None:
    academy.lms.no_courses = LmsError(FailureGroup.TIMEOUT, "timeout: memory://lms after 30.0 s")
    for _ in range(3):
        assert not (await academy.sync()).ok
    academy.lms.no_courses = LmsError(FailureGroup.HTTP_409, "upstream HTTP 409 from memory://lms")
    await academy.sync()

    assert await academy.rows(
        "SELECT error_group, severity, occurrences FROM alert ORDER BY id"
    ) == [("TIMEOUT", "high", 3), ("HTTP_409", "medium", 1)]
    assert await academy.rows("SELECT count(*) FROM delivery") == [(2,)]
    assert await academy.rows(GROUPING) == [("TIMEOUT",)] * 3 + [("HTTP_409",)]

    academy.lms.no_courses = None
    await academy.sync()
    assert await academy.rows(
        "SELECT DISTINCT resolved, resolved_by FROM alert WHERE alert_type = 'FAILED'"
    ) == [(True, "run#5")]

    academy.lms.no_courses = LmsError(FailureGroup.TIMEOUT, "timeout: memory://lms after 30.0 s")
    await academy.sync()
    assert await academy.rows("SELECT occurrences FROM alert WHERE NOT resolved AND"
                              " alert_type = 'FAILED'") == [(1,)]  # fmt: skip


async def test_a_failure_is_told_again_after_its_cooldown(academy: Academy) -> None:
    academy.lms.no_courses = LmsError(FailureGroup.TIMEOUT, "timeout: memory://lms after 30.0 s")
    await academy.sync()
    await academy.rows(
        "WITH past AS (UPDATE alert SET created_at = now() - interval '31 minutes') SELECT"
    )
    await academy.sync()
    assert await academy.rows("SELECT occurrences FROM alert ORDER BY id") == [(1,), (1,)]


async def test_the_gravest_failure_speaks_for_the_run(academy: Academy) -> None:
    academy.settings = academy.settings.model_copy(update={"enrolment_course_concurrency": 1})
    academy.lms.breaks["447"] = 0
    academy.lms.error = LmsError(FailureGroup.HTTP_4XX, "upstream HTTP 404 from memory://lms")
    academy.lms.enrol(CATEGORY, "448", "park03", {"status": "GC"})

    async def worse(what: str) -> None:
        if what == "roster 448":
            raise LmsError(FailureGroup.CONFIGURATION, "upstream HTTP 401 from memory://lms")

    academy.lms.step = worse
    result = await academy.sync()

    assert result.error == "upstream HTTP 401 from memory://lms"
    assert result.summary.failed_courses == 2
    assert {a[2] for a in await academy.alerts()} == {"303:HTTP_4XX", "303:CONFIGURATION"}


async def test_a_bug_of_ours_is_a_failed_course_too(academy: Academy) -> None:
    academy.lms.breaks["447"] = 1
    academy.lms.error = KeyError("a secret")

    result = await academy.sync()

    assert (result.ok, result.error) == (False, "internal error: KeyError")
    assert await academy.rows(GROUPING) == [("OTHER",)]


async def test_details_are_given_up_where_none_is_answered(academy: Academy) -> None:
    for number in range(100):
        academy.lms.enrol(CATEGORY, "447", f"u{number}", {"status": "GC"})
        academy.lms.no_detail.add(f"u{number}")
    academy.lms.no_detail |= {"kim01", "lee02"}

    result = await academy.sync()

    assert result.summary.failed_details == 102
    assert len(academy.lms.asked_details) < 70
    assert result.summary.new_records == 102


async def test_a_run_that_is_stopped_says_so(academy: Academy) -> None:
    reached = asyncio.Event()

    async def wait(what: str) -> None:
        if what.startswith("roster"):
            reached.set()
            await asyncio.Event().wait()

    academy.lms.step = wait
    run = asyncio.create_task(academy.sync())
    await reached.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run

    (view,) = (await Runs(academy.database).list(RunFilter())).items
    assert (view.status, view.error_message) == (
        RunStatus.FAILED,
        "stopped: this process was asked to end before the run was over",
    )
    assert await academy.rows("SELECT count(*) FROM job_lock") == [(0,)]


async def test_progress_is_told_and_its_bugs_are_nobody_elses(academy: Academy) -> None:
    seen: list[Progress] = []

    def show(progress: Progress) -> None:
        seen.append(progress)
        if progress.courses_done:
            raise ValueError("no terminal")

    result = await academy.service().run(SyncRequest(category_id=CATEGORY), on_progress=show)

    assert result.ok
    assert seen == [
        Progress(result.run_id, 1, 0, 0),
        Progress(result.run_id, 1, 1, 2, "파이썬 입문"),
    ]


async def test_runs_and_alerts_are_listed_and_resolved(academy: Academy) -> None:
    academy.lms.no_courses = LmsError(FailureGroup.TIMEOUT, "timeout: memory://lms after 30.0 s")
    failed = await academy.sync(trigger_type="SCHEDULER")
    academy.lms.no_courses = None
    done = await academy.sync()
    await academy.sync(304)
    runs, alerts = Runs(academy.database), Alerts(academy.database)

    first = await runs.list(RunFilter(category_id=CATEGORY), limit=1)
    assert [run.id for run in first.items] == [done.run_id]
    assert first.items[0].summary == done.summary
    rest = await runs.list(RunFilter(category_id=CATEGORY), limit=1, cursor=first.next)
    assert [run.id for run in rest.items] == [failed.run_id]
    assert rest.next is None
    by_status = await runs.list(RunFilter(status=RunStatus.FAILED))
    assert [(run.id, run.trigger_type) for run in by_status.items] == [(failed.run_id, "SCHEDULER")]
    assert (await runs.one(done.run_id)).total_records == 2

    page = await alerts.list(AlertFilter(alert_type=AlertType.NEW), limit=3)
    assert page.next is not None
    assert len((await alerts.list(AlertFilter(), cursor=page.next)).items) == 2
    medium = AlertFilter(severity=Severity.MEDIUM, category_id=CATEGORY, resolved=False)
    assert len((await alerts.list(medium)).items) == 3
    (told,) = (await alerts.list(AlertFilter(alert_type=AlertType.FAILED, resolved=True))).items
    assert (told.occurrences, told.source_id) == (1, "303:TIMEOUT")
    assert not (await alerts.list(AlertFilter(until=told.created_at))).items

    one = page.items[0]
    resolved = await alerts.resolve(one.id, by="ops")
    assert (resolved.resolved, resolved.resolved_by) == (True, "ops")
    assert await alerts.resolve(one.id, by="somebody else") == resolved
    with pytest.raises(NotFound):
        await alerts.resolve(10**12)
    with pytest.raises(NotFound):
        await runs.one(10**12)


async def test_a_detail_is_stored_with_the_next_course_of_its_user(academy: Academy) -> None:
    """The course that asked for it could not be stored; another one lists the user too."""
    academy.settings = academy.settings.model_copy(update={"enrolment_course_concurrency": 1})
    academy.lms.enrol(CATEGORY, "448", "kim01", {"status": "DS"})
    await academy.rows(
        "INSERT INTO delivery (notification_id, channel, row_key, max_attempts) VALUES"
        " (gen_random_uuid(), 'SHEET', 'enrolment_status:303:447:kim01:NEW:r1', 1) RETURNING id"
    )

    result = await academy.sync()

    assert result.error == "internal error: UniqueViolation"
    assert (result.summary.failed_courses, result.summary.courses_processed) == (1, 1)
    assert [key for _, _, key, _ in await academy.alerts()] == [
        "303:448:kim01",
        "303:kim01",
        "303:OTHER",
    ]


async def test_a_record_that_is_not_as_it_was_found_is_not_overwritten(academy: Academy) -> None:
    await academy.sync()
    academy.lms.enrol(CATEGORY, "447", "kim01", {"status": "GC"})

    async def meddle(what: str) -> None:
        if what == "detail kim01":
            await academy.rows("UPDATE source_record SET revision = 9 RETURNING revision")

    academy.lms.step = meddle
    result = await academy.sync()
    assert (result.ok, result.error) == (False, "internal error: Overtaken")
    assert result.summary.changed_records == 0

    academy.lms.step = None
    await academy.sync()
    changed = [alert for alert in await academy.alerts() if alert[0] == "CHANGED"]
    assert changed == [("CHANGED", "high", "303:447:kim01", 10)]
