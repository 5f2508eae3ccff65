"""What operators are told of: new, changed, gone and back; each once."""

from __future__ import annotations

from tests.enrolment.conftest import CATEGORY, Academy


async def test_a_first_sync_tells_every_record(academy: Academy) -> None:
    result = await academy.sync()

    assert result.ok
    assert result.error is None
    assert result.summary.model_dump() == {
        "categories_processed": 1,
        "courses_processed": 1,
        "status_rows_processed": 2,
        "details_processed": 2,
        "source_records_upserted": 4,
        "new_records": 4,
        "changed_records": 0,
        "created_alerts": 4,
        "failed_courses": 0,
        "failed_details": 0,
        "truncated_courses": 0,
        "missing_records": 0,
    }
    assert await academy.alerts() == [
        ("NEW", "medium", "303:447:kim01", 1),
        ("NEW", "low", "303:447:lee02", 1),
        ("NEW", "medium", "303:kim01", 1),
        ("NEW", "medium", "303:lee02", 1),
    ]
    assert academy.woken == [{"SHEET"}]


async def test_nothing_new_writes_nothing(academy: Academy) -> None:
    await academy.sync()
    before = await academy.rows("SELECT xmin::text, ctid::text FROM source_record ORDER BY 2")
    academy.lms.enrol(
        CATEGORY,
        "447",
        "kim01",
        {"update_time": "2026-11-21 14:00:00", "statusmsg": "결제대기", "status": "SJC"},
        name="김민수",
    )

    result = await academy.sync()

    assert (result.summary.source_records_upserted, result.summary.created_alerts) == (4, 0)
    after = await academy.rows("SELECT xmin::text, ctid::text FROM source_record ORDER BY 2")
    assert after == before


async def test_a_change_says_old_and_new(academy: Academy) -> None:
    await academy.sync()
    academy.lms.enrol(
        CATEGORY,
        "447",
        "kim01",
        {"status": "GC", "statusmsg": "결제완료", "gc_date": "2026-11-21 14:00:00"},
        name="김민수",
    )

    result = await academy.sync()

    assert (result.summary.changed_records, result.summary.created_alerts) == (1, 1)
    assert (await academy.alerts())[4:] == [("CHANGED", "high", "303:447:kim01", 2)]
    assert await academy.messages(4) == [
        "[변경] 김민수 (파이썬 입문) 상태: 결제대기 → 결제완료, 결제일: 없음 → 2026-11-21 14:00"
    ]
    assert await academy.rows("SELECT old, new FROM alert WHERE revision = 2") == [
        (
            {"status": "SJC", "statusmsg": "결제대기"},
            {"status": "GC", "statusmsg": "결제완료", "gc_date": "2026-11-21 14:00:00"},
        )
    ]
    assert await academy.rows(
        "SELECT status, status_msg, gc_date AT TIME ZONE 'Asia/Seoul' = '2026-11-21 14:00',"
        " revision FROM source_record WHERE source_id = '303:447:kim01'"
    ) == [("GC", "결제완료", True, 2)]


async def test_a_rollback_is_high_though_its_date_stays(academy: Academy) -> None:
    paid = {"status": "GC", "gc_date": "2026-11-21 14:00:00"}
    academy.lms.enrol(CATEGORY, "447", "kim01", paid, name="김민수")
    await academy.sync()
    academy.lms.enrol(CATEGORY, "447", "kim01", {**paid, "status": "SJC"}, name="김민수")
    await academy.sync()

    assert (await academy.alerts())[4:] == [("CHANGED", "high", "303:447:kim01", 2)]
    assert await academy.messages(4) == [
        "[변경·되돌림] 김민수 (파이썬 입문) 상태: 결제 완료 → 승인 준비"
    ]


async def test_back_and_forth_is_told_each_time(academy: Academy) -> None:
    for status in ("DS", "SJC", "DS", "SJC"):
        academy.lms.enrol(CATEGORY, "447", "lee02", {"status": status}, name="이영희")
        await academy.sync()

    row_keys = await academy.rows("SELECT row_key FROM delivery ORDER BY id")
    assert [key for (key,) in row_keys if "lee02" in key and "status" in key] == [
        "enrolment_status:303:447:lee02:NEW:r1",
        "enrolment_status:303:447:lee02:CHANGED:r2",
        "enrolment_status:303:447:lee02:CHANGED:r3",
        "enrolment_status:303:447:lee02:CHANGED:r4",
    ]


async def test_who_leaves_is_missed_and_who_returns_is_told(academy: Academy) -> None:
    await academy.sync()
    academy.lms.leave(CATEGORY, "447", "kim01")
    gone = await academy.sync()
    assert (gone.summary.missing_records, gone.summary.changed_records) == (1, 1)
    assert await academy.rows(
        "SELECT missing_since IS NOT NULL, revision FROM source_record"
        " WHERE source_id = '303:447:kim01'"
    ) == [(True, 2)]
    assert (await academy.sync()).summary.created_alerts == 0, "once is enough"

    academy.lms.enrol(
        CATEGORY, "447", "kim01", {"status": "SJC", "statusmsg": "결제대기"}, name="김민수"
    )
    await academy.sync()

    assert await academy.messages(4) == [
        "[사라짐] 김민수 (파이썬 입문) 수강 목록에서 사라졌습니다 (마지막 상태: 결제대기)",
        "[복귀] 김민수 (파이썬 입문) 수강 목록에 다시 나타났습니다",
    ]
    assert (await academy.alerts())[4:] == [
        ("CHANGED", "high", "303:447:kim01", 2),
        ("CHANGED", "high", "303:447:kim01", 3),
    ]


async def test_a_user_in_two_courses_has_one_detail(academy: Academy) -> None:
    academy.lms.enrol(CATEGORY, "448", "kim01", {"status": "DS"}, name="김민수")
    first = await academy.sync()
    assert (first.summary.status_rows_processed, first.summary.details_processed) == (3, 2)
    assert sorted(academy.lms.asked_details) == ["kim01", "lee02"]

    academy.lms.users["kim01"] = {"user": "kim01", "phone": "010-1234-5678"}
    await academy.sync()

    assert (await academy.alerts())[5:] == [("CHANGED", "medium", "303:kim01", 2)]
    assert await academy.messages(5) == ["[변경] 김민수 회원 정보 전화: 없음 → 010-1234-5678"]


async def test_a_course_under_two_categories_is_two_courses(academy: Academy) -> None:
    academy.lms.enrol(304, "447", "kim01", {"status": "DS"})
    await academy.sync()
    await academy.sync(304)
    del academy.lms.categories[CATEGORY]["447"]["kim01"]
    await academy.sync(304)
    await academy.sync()

    keys = [(type_, key) for type_, _, key, _ in await academy.alerts()]
    assert keys[4:] == [
        ("NEW", "304:447:kim01"),
        ("NEW", "304:kim01"),
        ("CHANGED", "303:447:kim01"),
    ]


async def test_a_course_that_is_gone_takes_its_people_along(academy: Academy) -> None:
    academy.lms.enrol(CATEGORY, "448", "park03", {"status": "GC"}, name="박지민")
    await academy.sync()
    del academy.lms.categories[CATEGORY]["447"]

    result = await academy.sync()

    assert result.ok
    assert (result.summary.missing_records, result.summary.courses_processed) == (2, 1)
    assert [key for _, _, key, _ in (await academy.alerts())[6:]] == [
        "303:447:kim01",
        "303:447:lee02",
    ]


async def test_a_list_without_any_course_misses_nobody(academy: Academy) -> None:
    await academy.sync()
    academy.lms.categories[CATEGORY] = {}

    result = await academy.sync()

    assert not result.ok
    assert result.error == "upstream: no courses in category #303, though it had some"
    assert result.summary.missing_records == 0
    assert [alert[0] for alert in await academy.alerts()] == ["NEW"] * 4 + ["FAILED"]


async def test_a_listing_that_left_something_out_misses_nobody(academy: Academy) -> None:
    await academy.sync()
    academy.lms.leave(CATEGORY, "447", "kim01")
    academy.lms.incomplete.add("447")
    assert (await academy.sync()).summary.created_alerts == 0

    academy.lms.incomplete.clear()
    academy.lms.enrol(CATEGORY, "447", "park03", {"status": "DS"})
    cut = await academy.sync(max_users_per_course=1)
    assert cut.ok
    assert (cut.summary.truncated_courses, cut.summary.status_rows_processed) == (1, 1)
    assert (cut.summary.missing_records, cut.summary.new_records) == (0, 0)


async def test_everybody_listed_twice_is_told_once(academy: Academy) -> None:
    academy.lms.repeats.add("447")
    assert (await academy.sync()).summary.created_alerts == 4


async def test_odd_values_cost_no_course_and_secrets_are_not_stored(academy: Academy) -> None:
    odd = {
        "memo": "nul \0 and half a pair \ud800",
        "score": float("nan"),
        "deep": [[[[[[[[[[[[[[[[[[[["x"]]]]]]]]]]]]]]]]]]]],
        "userPassword": "hunter2",
        "inner": {"juminNumber": "900101-1234567", "kept": 1},
    }
    academy.lms.enrol(CATEGORY, "447", "kim01", odd, name="nul \0")
    academy.lms.enrol(CATEGORY, "447", "e" * 3000, {"status": "GC"}, name="n" * 3000)
    academy.lms.enrol(CATEGORY, "447", "e" * 2999 + "f", {"status": "GC"})

    assert (await academy.sync()).summary.new_records == 8
    assert (await academy.sync()).summary.created_alerts == 0
    stored = str(await academy.rows("SELECT payload, user_name FROM source_record"))
    stored += str(await academy.rows("SELECT data FROM notification"))
    assert "hunter2" not in stored
    assert "900101" not in stored
    assert "'kept': 1" in stored


async def test_records_that_were_deleted_by_hand_are_new_again(academy: Academy) -> None:
    await academy.sync()
    await academy.rows("WITH gone AS (DELETE FROM source_record) SELECT")

    assert (await academy.sync()).ok
    assert [revision for *_, revision in (await academy.alerts())[4:]] == [2, 2, 2, 2]


async def test_the_first_listing_may_be_told_in_sum(academy: Academy) -> None:
    academy.settings = academy.settings.model_copy(update={"enrolment_baseline": "summary"})
    academy.lms.enrol(CATEGORY, "448", "kim01", {"status": "DS"})
    academy.lms.breaks["448"] = 0
    failed = await academy.sync()
    assert (failed.ok, failed.summary.new_records, failed.summary.created_alerts) == (False, 4, 1)
    academy.lms.breaks.clear()

    first = await academy.sync()

    assert (first.summary.new_records, first.summary.created_alerts) == (1, 1)
    assert await academy.messages(1) == ["[신규] 기수 303 첫 수집: 수강 3건, 회원 2명"]
    academy.lms.enrol(CATEGORY, "448", "lee02", {"status": "DS"})
    assert (await academy.sync()).summary.created_alerts == 1


async def test_an_alert_is_a_notification_with_its_chain(academy: Academy) -> None:
    await academy.sync()

    found = await academy.rows(
        "SELECT n.source, n.type, n.data - 'alert_id' - 'run_id', d.channel, d.row_key,"
        " d.then_steps, n.title, n.message = a.message, a.id = (n.data ->> 'alert_id')::bigint"
        " FROM alert a JOIN notification n ON n.id = a.notification_id"
        " JOIN delivery d ON d.notification_id = n.id WHERE a.source_id = '303:447:kim01'"
    )
    (source, type_, data, channel, row_key, then, title, same, named) = found[0]
    assert (source, type_, title, same, named) == (
        "enrolment-sync",
        "NEW",
        "수강 신규",
        True,
        True,
    )
    assert data == {
        "alert_type": "NEW",
        "severity": "medium",
        "source_type": "enrolment_status",
        "source_id": "303:447:kim01",
        "category_id": 303,
        "course_id": "447",
        "course_name": "파이썬 입문",
        "user_id": "kim01",
        "user_name": "김민수",
        "revision": 1,
        "new": {"status": "SJC", "statusmsg": "결제대기"},
    }
    assert (channel, row_key) == ("SHEET", "enrolment_status:303:447:kim01:NEW:r1")
    assert [(step["channel"], step["recipient"], step["template_code"]) for step in then] == [
        ("KAKAO", "ops", "KVCA_ALERT")
    ]
    assert await academy.rows("SELECT count(*) FROM sheet_outbox WHERE status = 'PENDING'") == [
        (4,)
    ]
