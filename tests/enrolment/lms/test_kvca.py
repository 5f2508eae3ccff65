from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest
from pydantic import SecretStr

from allim.base.clock import KST
from allim.enrolment.lms.kvca import Kvca, KvcaSession
from allim.enrolment.lms.protocol import Course, FailureGroup, LmsError, Roster
from allim.testing.lms.faults import Fault
from allim.testing.lms.kvca import CATEGORIES, COURSES, DETAIL, LOGIN, ROSTER, FakeKvca
from tests.enrolment.lms.conversation import (
    CATEGORY,
    Time,
    client_of,
    failure,
    manners,
    read,
)

COURSE = 447


@pytest.fixture
async def fake() -> AsyncIterator[FakeKvca]:
    async with FakeKvca() as fake:
        fake.add_course(CATEGORY, COURSE, "파이썬 입문")
        yield fake


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def session(fake: FakeKvca, time: Time) -> AsyncIterator[KvcaSession]:
    name, password = fake.login
    lms = Kvca(fake.url, username=name, password=SecretStr(password), manners=manners(time))
    async with lms.session() as session:
        yield session
    await lms.close()


class TestCourses:
    @pytest.mark.parametrize("as_array", [True, False])
    @pytest.mark.parametrize("id_name", ["courseid", "id"])
    async def test_come_in_every_shape(
        self, fake: FakeKvca, session: KvcaSession, as_array: bool, id_name: str
    ) -> None:
        fake.add_course(CATEGORY, 448, "안전")
        fake.courses_as_array, fake.course_id_name = as_array, id_name
        expected = [Course("447", "파이썬 입문"), Course("448", "안전")]
        assert await session.courses(CATEGORY) == expected

    async def test_are_listed_once_beside_plain_values(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.fail(COURSES, Fault.answer('{"total":2,"a":{"courseid":1},"b":{"courseid":"1"}}'))
        assert await session.courses(CATEGORY) == [Course("1")]

    @pytest.mark.parametrize("nothing", ["{}", "[]"])
    async def test_a_category_may_have_none(
        self, fake: FakeKvca, session: KvcaSession, nothing: str
    ) -> None:
        fake.fail(COURSES, Fault.answer(nothing))
        assert await session.courses(CATEGORY) == []

    async def test_an_unknown_category_is_told_from_an_empty_one(
        self, session: KvcaSession
    ) -> None:
        with pytest.raises(LmsError, match='unknown category "999"') as caught:
            await session.courses(999)
        assert caught.value.group is FailureGroup.CONFIGURATION

    @pytest.mark.parametrize(
        "answer",
        ['{"error":"no"}', '{"a":{"name":"x"}}', '[{"courseid":null}]', "[[]]", "7", "null", '"x"'],
    )
    async def test_what_is_no_list_of_courses_is_an_error_and_never_an_empty_one(
        self, fake: FakeKvca, session: KvcaSession, answer: str
    ) -> None:
        fake.fail(COURSES, Fault.answer(answer))
        with pytest.raises(LmsError) as caught:
            await session.courses(CATEGORY)
        assert caught.value.group is FailureGroup.OTHER

    async def test_an_empty_list_needs_a_readable_list_of_categories(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.fail(COURSES, Fault.answer("[]"))
        fake.fail(CATEGORIES, Fault.answer('{"error":"no"}'))
        with pytest.raises(LmsError, match="not an array"):
            await session.courses(CATEGORY)


class TestRows:
    async def test_are_business_fields_and_times(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.enrol(
            COURSE,
            "kim",
            userName=" 김민수 ",
            status="GC",
            gc_date="2026-03-02 10:00:00.0",
            sjc_date="언젠가",
            juminNumber="900101-1234567",
            visits=17,
        )
        (row,) = (await read(session, COURSE)).rows
        assert row.fields == {
            "userId": "kim",
            "email": "kim@example.com",
            "userName": "김민수",
            "companyName": "한빛상사",
            "deptName": "개발팀",
            "jobPosition": "대리",
            "status": "GC",
            "statusmsg": "결제완료",
            "codename": "수강신청",
            "ds_date": "2026-03-01 09:00:00",
            "gc_date": "2026-03-02 10:00:00",
            "sjc_date": "언젠가",
        }
        assert (row.user_id, row.user_name, row.status) == ("kim", "김민수", "GC")
        assert row.gc_date == datetime(2026, 3, 2, 10, tzinfo=KST)
        assert row.ds_date == row.update_time == datetime(2026, 3, 1, 9, tzinfo=KST)
        assert row.sjc_date is None
        assert row.detail is None

    async def test_what_changes_by_itself_changes_no_field(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.enrol(COURSE, "kim")
        before = (await read(session, COURSE)).rows[0]
        fake.change(COURSE, "kim", update_time="2026-04-01 00:00:00", server_now=123, gc_date="")
        after = (await read(session, COURSE)).rows[0]
        assert before.fields == after.fields
        assert before.update_time != after.update_time

    async def test_without_a_user_id_the_address_identifies(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.enrol(COURSE, "a", userId=None, email=" Kim@Example.com ")
        del fake.enrol(COURSE, "b", email="lee@example.com")["user"]["userId"]
        found = await read(session, COURSE)
        assert found.users == ["kim@example.com", "lee@example.com"]
        assert found.roster == Roster()

    async def test_rows_that_name_nobody_are_left_out_and_told(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.enrol(COURSE, "kim")
        fake.enrol(COURSE, "x", userId="", email="nobody")
        rows: list[Any] = fake.rows(COURSE)
        rows += [None, 7, {"user": None}, {"user": {"userId": "lee"}, "classStatus": None}]
        found = await read(session, COURSE)
        assert found.users == ["kim"]
        assert not found.roster.complete
        assert found.roster.problems == [
            "rows left out: without userId and email (1)",
            "rows left out: without user or classStatus (4)",
        ]

    async def test_a_repeated_user_comes_once(self, fake: FakeKvca, session: KvcaSession) -> None:
        fake.rows(COURSE).append(fake.enrol(COURSE, "kim"))
        found = await read(session, COURSE)
        assert (found.users, found.roster) == (["kim"], Roster())

    async def test_of_a_user_repeated_otherwise_the_first_counts_and_nobody_is_missed(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.enrol(COURSE, "kim", status="DS")
        fake.enrol(COURSE, "kim", status="GC")
        found = await read(session, COURSE)
        assert [row.status for row in found.rows] == ["DS"]
        assert not found.roster.complete
        assert not found.roster.truncated
        assert "other content, the first counts (1)" in found.roster.problems[0]

    async def test_a_limit_truncates_only_what_is_longer(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        for user in ("kim", "lee", "park"):
            fake.enrol(COURSE, user)
        fake.rows(COURSE).append(fake.row(COURSE, "kim"))
        assert (await read(session, COURSE, limit=3)).roster == Roster()
        cut = await read(session, COURSE, limit=2)
        assert cut.users == ["kim", "lee"]
        assert (cut.roster.complete, cut.roster.truncated) == (False, True)

    async def test_an_empty_course_is_complete(self, session: KvcaSession) -> None:
        found = await read(session, COURSE)
        assert (found.rows, found.roster) == ([], Roster())

    async def test_a_long_listing_is_never_in_memory_as_a_whole(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        # 4000 rows of 5 KB are 20 MB.
        one, count = fake.enrol(COURSE, "kim"), 4000

        def rows() -> Iterator[Any]:
            for number in range(count):
                yield {**one, "user": {"userId": f"user{number}"}, "note": "x" * 5000}

        fake.list_long(COURSE, rows)
        await session.courses(CATEGORY)
        tracemalloc.start()
        try:
            seen = 0
            listed = session.roster(
                CATEGORY, Course(str(COURSE)), limit=10**6, roster=(roster := Roster())
            )
            async for _ in listed:
                seen += 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (seen, roster) == (count, Roster())
        assert peak < 8_000_000


class TestDetail:
    async def test_has_no_secret_and_nothing_that_changes_by_itself(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.enrol(COURSE, "kim", userName="김민수")
        (row,) = (await read(session, COURSE)).rows
        assert await session.detail(CATEGORY, row) == {
            "userId": "kim",
            "userName": "김민수",
            "phone": "010-1234-5678",
            "address": "서울특별시 종로구",
        }
        (asked,) = fake.calls_of(DETAIL)
        assert asked.asked == {"termId": CATEGORY, "userId": "kim"}

    @pytest.mark.parametrize("answer", ["[]", "null", '"x"', "<html>", ""])
    async def test_that_is_no_object_is_an_error(
        self, fake: FakeKvca, session: KvcaSession, answer: str
    ) -> None:
        fake.enrol(COURSE, "kim")
        (row,) = (await read(session, COURSE)).rows
        fake.fail(DETAIL, Fault.answer(answer))
        with pytest.raises(LmsError) as caught:
            await session.detail(CATEGORY, row)
        assert caught.value.group is FailureGroup.OTHER


class TestLogin:
    async def test_is_made_once_for_all_who_wait_for_it(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        await asyncio.gather(*(session.courses(CATEGORY) for _ in range(20)))
        assert fake.logins == 1

    async def test_is_renewed_once_when_the_token_is_refused_in_mid_run(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        for number in range(20):
            fake.enrol(COURSE, f"user{number}")
        rows = (await read(session, COURSE)).rows
        fake.forget_tokens()
        details = await asyncio.gather(*(session.detail(CATEGORY, row) for row in rows))
        assert len(details) == 20
        assert (await read(session, COURSE)).users == [row.user_id for row in rows]
        assert fake.logins == 2

    async def test_that_is_fresh_is_kept_when_an_older_token_is_refused(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.enrol(COURSE, "kim")
        (row,) = (await read(session, COURSE)).rows
        gate = fake.hold(DETAIL)
        late = asyncio.create_task(session.detail(CATEGORY, row))
        await gate.reached()
        fake.forget_tokens()
        await session.courses(CATEGORY)
        gate.open()
        await late
        assert fake.logins == 2

    async def test_is_renewed_before_the_token_ends(
        self, fake: FakeKvca, session: KvcaSession, time: Time
    ) -> None:
        fake.token_seconds = 3600
        await session.courses(CATEGORY)
        time.now += 3500
        await session.courses(CATEGORY)
        assert fake.logins == 1
        time.now += 50
        await session.courses(CATEGORY)
        assert fake.logins == 2
        assert len(fake.calls_of(COURSES)) == 3

    @pytest.mark.parametrize("seconds", [-3600.0, 1e12])
    async def test_a_token_whose_end_cannot_be_is_used_until_it_is_refused(
        self, fake: FakeKvca, session: KvcaSession, seconds: float
    ) -> None:
        # A server whose clock is wrong: the token's end says nothing.
        fake.token_seconds = seconds
        fake.honours_expiry = False
        for _ in range(3):
            await session.courses(CATEGORY)
        assert fake.logins == 1

    async def test_a_place_that_refuses_fresh_tokens_is_not_logged_in_for_again(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        await session.courses(CATEGORY)
        fake.fail(ROSTER, Fault.status(401), times=None)
        for _ in range(3):
            error = await failure(session, COURSE)
            assert error.group is FailureGroup.CONFIGURATION
            assert "right after a login" in str(error)
        assert fake.logins == 2
        fake.heal()
        assert (await read(session, COURSE)).roster == Roster()

    async def test_that_fails_fails_all_who_wait_with_one_try(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.login = ("allim", "changed")
        gate = fake.hold(LOGIN)
        asked = [asyncio.create_task(session.courses(CATEGORY)) for _ in range(20)]
        await gate.reached()
        gate.open()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert {str(result) for result in results} == {
            f"upstream HTTP 401 from {LOGIN}: the login was refused; check LMS_USERNAME and"
            " LMS_PASSWORD"
        }
        assert fake.logins == 1

    @pytest.mark.parametrize(
        ("answer", "group"),
        [
            ("{}", FailureGroup.CONFIGURATION),
            ('{"message":"bad credentials"}', FailureGroup.CONFIGURATION),
            ("[]", FailureGroup.CONFIGURATION),
            ('{"accessToken":"a\\r\\nX-Evil: 1"}', FailureGroup.OTHER),
            ("<html>", FailureGroup.OTHER),
        ],
    )
    async def test_without_a_usable_token_is_told(
        self, fake: FakeKvca, session: KvcaSession, answer: str, group: FailureGroup
    ) -> None:
        fake.fail(LOGIN, Fault.answer(answer))
        with pytest.raises(LmsError) as caught:
            await session.courses(CATEGORY)
        assert caught.value.group is group

    async def test_a_server_error_at_login_is_lived_through(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        fake.fail(LOGIN, Fault.maintenance(), times=2)
        assert await session.courses(CATEGORY) == [Course("447", "파이썬 입문")]

    async def test_whoever_gives_up_waiting_does_not_end_it_for_the_others(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        gate = fake.hold(LOGIN)
        first = asyncio.create_task(session.courses(CATEGORY))
        await gate.reached()
        second = asyncio.create_task(session.courses(CATEGORY))
        first.cancel()
        await asyncio.wait([first])
        gate.open()
        assert await second == [Course("447", "파이썬 입문")]
        assert fake.logins == 1


async def test_settings_lead_to_it(fake: FakeKvca) -> None:
    fake.enrol(COURSE, "kim")
    lms = client_of(fake)
    async with lms.session() as session:
        assert (await read(session, COURSE)).users == ["kim"]
    await lms.close()
