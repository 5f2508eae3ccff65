from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from allim.database.pool import Database
from allim.enrolment.lms import moodle
from allim.enrolment.lms.moodle import Moodle, MoodleSession
from allim.enrolment.lms.moodle_rows import USER_FIELDS
from allim.enrolment.lms.protocol import Course, FailureGroup, LmsError, Roster
from allim.testing.lms.faults import Fault
from allim.testing.lms.moodle import CATEGORIES, COMPLETION, COURSES, ROSTER, SERVER, FakeMoodle
from tests.enrolment.lms.conversation import (
    CATEGORY,
    Time,
    client_of,
    failure,
    manners,
    read,
)
from tests.enrolment.lms.test_calls import GROUPS

COURSE = 447
PAGE = 4


@pytest.fixture
async def fake() -> AsyncIterator[FakeMoodle]:
    async with FakeMoodle() as fake:
        fake.add_course(CATEGORY, COURSE, "파이썬 입문")
        yield fake


@pytest.fixture
def time() -> Time:
    return Time()


def client(fake: FakeMoodle, time: Time, **options: Any) -> Moodle:
    token = SecretStr(fake.token)
    return Moodle(fake.url, token=token, manners=manners(time), **({"page": PAGE} | options))


@pytest.fixture
async def session(fake: FakeMoodle, time: Time) -> AsyncIterator[MoodleSession]:
    lms = client(fake, time)
    async with lms.session() as session:
        yield session
    await lms.close()


@pytest.fixture
async def asking(fake: FakeMoodle, time: Time) -> AsyncIterator[MoodleSession]:
    """A session that asks for completion."""
    lms = client(fake, time, completion=True)
    async with lms.session() as session:
        yield session
    await lms.close()


class TestCourses:
    async def test_of_categories_below_belong_to_it(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        fake.add_category(310, below=CATEGORY)
        fake.add_category(320, below=310)
        fake.add_course(320, 450, "안전")
        fake.add_course(400, 451)
        assert await session.courses(CATEGORY) == [
            Course("447", "파이썬 입문"),
            Course("450", "안전"),
        ]

    async def test_an_unknown_category_is_told_from_an_empty_one(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        fake.add_category(400)
        assert await session.courses(400) == []
        with pytest.raises(LmsError, match='unknown category "999"') as caught:
            await session.courses(999)
        assert caught.value.group is FailureGroup.CONFIGURATION

    @pytest.mark.parametrize("answer", ["[]", '{"courses":{}}', '{"courses":[{}]}', "null", "{}"])
    async def test_what_is_no_list_of_courses_is_an_error(
        self, fake: FakeMoodle, session: MoodleSession, answer: str
    ) -> None:
        fake.fail(COURSES, Fault.answer(answer))
        with pytest.raises(LmsError) as caught:
            await session.courses(CATEGORY)
        assert caught.value.group is FailureGroup.OTHER


class TestRows:
    async def test_are_business_fields_with_the_detail_inline(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        fake.enrol(
            COURSE,
            7,
            fullname="김민수",
            phone1="010-1234-5678",
            customfields=[
                {"type": "text", "name": "사번", "shortname": "empno", "value": "A-1"},
                {"type": "text", "name": "주민등록번호", "shortname": "num", "value": "1"},
                {"type": "text", "name": "비고", "shortname": "user_password", "value": "x"},
            ],
        )
        (row,) = (await read(session, COURSE)).rows
        assert row.fields == {
            "fullname": "김민수",
            "email": "user7@example.com",
            "department": "개발팀",
            "institution": "한빛상사",
            "roles": "student",
            "status": "active",
        }
        assert (row.user_id, row.user_name, row.status, row.status_msg) == (
            "7", "김민수", "active", "수강 중",
        )  # fmt: skip
        expected = {"username": "user7", "phone1": "010-1234-5678", "profile_empno": "A-1"}
        assert row.detail == await session.detail(CATEGORY, row) == expected
        assert row.gc_date is row.ds_date is row.sjc_date is row.update_time is None

    @pytest.mark.parametrize("held_at_most", [1, 2, 5000])
    async def test_whoever_is_not_active_is_suspended(
        self,
        fake: FakeMoodle,
        session: MoodleSession,
        monkeypatch: pytest.MonkeyPatch,
        held_at_most: int,
    ) -> None:
        monkeypatch.setattr(moodle, "HELD_AT_MOST", held_at_most)
        for user in range(1, 10):
            fake.enrol(COURSE, user, active=user % 3 != 0)
        found = await read(session, COURSE)
        assert {r.user_id for r in found.rows if r.status == "suspended"} == {"3", "6", "9"}
        assert len(found.users) == 9
        assert found.roster == Roster()

    async def test_one_who_enrols_while_the_listings_are_read_is_not_suspended(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        fake.enrol(COURSE, 1)
        # The active ones have been listed to the end, the listing itself has not begun.
        gate = fake.hold(ROSTER, where={"userfields": ",".join(USER_FIELDS)})
        reading = asyncio.create_task(read(session, COURSE))
        await gate.reached()
        fake.enrol(COURSE, 2)
        gate.open()
        assert [(r.user_id, r.status) for r in (await reading).rows] == [
            ("1", "active"),
            ("2", "active"),
        ]


class TestPages:
    async def test_hidden_users_make_short_pages_and_no_end(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        for user in range(1, 41):
            fake.enrol(COURSE, user, hidden=user % 5 < 2)
        found = await read(session, COURSE)
        assert found.users == [str(user) for user in range(1, 41) if user % 5 >= 2]
        assert found.roster == Roster()

    @pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9])
    async def test_every_length_is_read_to_its_end(
        self, fake: FakeMoodle, session: MoodleSession, count: int
    ) -> None:
        for user in range(count):
            fake.enrol(COURSE, user + 1)
        found = await read(session, COURSE)
        assert found.users == [str(user + 1) for user in range(count)]
        assert found.roster == Roster()

    async def test_a_limit_truncates_only_what_is_longer(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        for user in range(1, 7):
            fake.enrol(COURSE, user)
        assert (await read(session, COURSE, limit=6)).roster == Roster()
        cut = await read(session, COURSE, limit=5)
        assert cut.users == ["1", "2", "3", "4", "5"]
        assert (cut.roster.complete, cut.roster.truncated) == (False, True)

    async def test_one_who_leaves_meanwhile_hides_nobody_else(
        self, fake: FakeMoodle, time: Time
    ) -> None:
        for user in range(1, 251):
            fake.enrol(COURSE, user)
        lms = client(fake, time, page=100)
        roster, seen = Roster(), []
        async with lms.session() as session:
            listed = session.roster(CATEGORY, Course(str(COURSE)), limit=999, roster=roster)
            async for row in listed:
                if row.user_id in ("2", "150"):
                    fake.drop(COURSE, int(row.user_id) - 1)
                seen.append(row.user_id)
        await lms.close()
        assert seen == [str(user) for user in range(1, 251)]
        assert roster == Roster()

    async def test_when_many_leave_meanwhile_nobody_is_missed_by_it(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        for user in range(1, 13):
            fake.enrol(COURSE, user)
        roster = Roster()
        listed = session.roster(CATEGORY, Course(str(COURSE)), limit=99, roster=roster)
        async for row in listed:
            if row.user_id == "2":
                for user in (1, 2, 3, 4):
                    fake.drop(COURSE, user)
        assert not roster.complete
        assert "changed while it was read" in roster.problems[0]

    async def test_one_who_enrols_meanwhile_comes_once(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        for user in range(10, 20):
            fake.enrol(COURSE, user)
        seen = []
        listed = session.roster(CATEGORY, Course(str(COURSE)), limit=99, roster=Roster())
        async for row in listed:
            if row.user_id == "11":
                fake.enrol(COURSE, 1)
            seen.append(row.user_id)
        assert sorted(seen) == [str(user) for user in range(10, 20)]

    async def test_a_server_that_does_not_page_is_told(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        fake.fail(ROSTER, Fault.answer('[{"id":1,"fullname":"x"}]'), times=None)
        assert "its pages repeat themselves" in str(await failure(session, COURSE))


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "group"),
        [
            ("invalidtoken", FailureGroup.CONFIGURATION),
            ("accessexception", FailureGroup.CONFIGURATION),
            ("invalidparameter", FailureGroup.CONFIGURATION),
            ("invalidrecordunknown", FailureGroup.CONFIGURATION),
            ("nopermissions", FailureGroup.CONFIGURATION),
            ("something new", FailureGroup.OTHER),
            ("500", FailureGroup.OTHER),
        ],
    )
    async def test_come_with_status_200_and_are_not_repeated(
        self, fake: FakeMoodle, session: MoodleSession, code: str, group: FailureGroup
    ) -> None:
        fake.refuse(ROSTER, code)
        error = await failure(session, COURSE)
        assert error.group is group
        assert "오류" not in str(error)
        assert len(fake.calls_of(ROSTER)) == 1

    @pytest.mark.parametrize("code", ["dbconnectionfailed", "sitemaintenance"])
    async def test_that_pass_are_lived_through(
        self, fake: FakeMoodle, session: MoodleSession, time: Time, code: str
    ) -> None:
        fake.enrol(COURSE, 1)
        fake.refuse(ROSTER, code, times=3)
        assert (await read(session, COURSE)).users == ["1"]
        assert time.slept == [0.5, 1.0, 2.0]

    async def test_are_grouped_by_the_operators_sql_as_by_us(
        self, fake: FakeMoodle, session: MoodleSession, database: Database
    ) -> None:
        for fault, group, sql in (
            (Fault.maintenance(), FailureGroup.HTTP_5XX, "HTTP_5XX"),
            (Fault.status(409), FailureGroup.HTTP_409, "HTTP_409"),
            (Fault.page(), FailureGroup.OTHER, "OTHER"),
            (Fault.answer('{"errorcode":" 409 "}'), FailureGroup.OTHER, "OTHER"),
            (Fault.answer('{"errorcode":"x 503 "}'), FailureGroup.OTHER, "OTHER"),
            (Fault.answer('{"errorcode":"locktimeout"}'), FailureGroup.TIMEOUT, "TIMEOUT"),
        ):
            fake.fail(ROSTER, fault, times=None)
            error = await failure(session, COURSE)
            fake.heal()
            assert error.group is group
            text = f"{error} (course 447)"
            assert await database.fetch(GROUPS, {"text": text}) == [(sql,)], text

    async def test_the_token_is_in_no_address_and_no_text(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        fake.refuse(ROSTER, "invalidtoken")
        assert fake.token not in str(await failure(session, COURSE))
        assert fake.calls[0].asked["wstoken"] == fake.token

    async def test_diagnosis_tells_what_to_change(self, fake: FakeMoodle, time: Time) -> None:
        lms = client(fake, time)
        assert await lms.diagnose() is None
        fake.switched_off.add(CATEGORIES)
        assert await lms.diagnose() == (
            f"Moodle refused {SERVER} ({CATEGORIES}) with 'accessexception': the token's service"
            " lacks this function, or its user may not use it"
        )
        fake.forget_tokens()
        assert "check LMS_TOKEN" in (await lms.diagnose() or "")
        await lms.close()


class TestCompletion:
    async def test_is_not_asked_for_unless_wanted(
        self, fake: FakeMoodle, session: MoodleSession
    ) -> None:
        fake.enrol(COURSE, 1, completed=True)
        assert [row.status for row in (await read(session, COURSE)).rows] == ["active"]
        assert not fake.calls_of(COMPLETION)

    async def test_is_asked_once_for_each_user(
        self, fake: FakeMoodle, asking: MoodleSession
    ) -> None:
        fake.courses[COURSE].criteria = True
        for user in range(1, 10):
            fake.enrol(COURSE, user, completed=user % 2 == 0, active=user != 8)
        fake.enrol(COURSE, 10, completed=None)
        rows = {row.user_id: row for row in (await read(asking, COURSE)).rows}
        assert len(fake.calls_of(COMPLETION)) == 10
        assert (rows["2"].status, rows["2"].status_msg) == ("completed", "수료")
        assert rows["2"].fields["completed"] is True
        assert (rows["1"].status, rows["1"].fields["completed"]) == ("active", False)
        assert rows["8"].status == "suspended"
        assert "completed" not in rows["10"].fields

    async def test_of_a_course_without_criteria_is_asked_for_one_page(
        self, fake: FakeMoodle, asking: MoodleSession
    ) -> None:
        for user in range(1, 30):
            fake.enrol(COURSE, user)
        found = await read(asking, COURSE)
        assert {row.status for row in found.rows} == {"active"}
        assert found.roster == Roster()
        assert len(fake.calls_of(COMPLETION)) <= PAGE

    async def test_that_cannot_be_read_fails_the_course(
        self, fake: FakeMoodle, asking: MoodleSession
    ) -> None:
        fake.courses[COURSE].criteria = True
        for user in range(1, 4):
            fake.enrol(COURSE, user, completed=False)
        fake.fail(COMPLETION, Fault.status(409), where={"userid": 2})
        assert (await failure(asking, COURSE)).group is FailureGroup.HTTP_409
        fake.fail(COMPLETION, Fault.answer('{"completionstatus":[]}'))
        assert "without completionstatus" in str(await failure(asking, COURSE))


async def test_settings_lead_to_it(fake: FakeMoodle) -> None:
    fake.enrol(COURSE, 1)
    lms = client_of(fake)
    async with lms.session() as session:
        assert (await read(session, COURSE)).users == ["1"]
    await lms.close()
