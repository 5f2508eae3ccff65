"""How calls are made and what becomes of those that fail, over sockets and through a client."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from pydantic import SecretStr

from allim.database.pool import Database
from allim.enrolment.lms.http import ANSWER_LIMIT
from allim.enrolment.lms.kvca import Kvca, KvcaSession
from allim.enrolment.lms.protocol import Course, FailureGroup, LmsError, Roster
from allim.testing.http import Answer, HttpSink
from allim.testing.lms.faults import Fault
from allim.testing.lms.kvca import CATEGORIES, COURSES, DETAIL, LOGIN, ROSTER, FakeKvca
from tests.enrolment.lms.conversation import (
    CATEGORY,
    PATIENCE_SECONDS,
    SOON,
    Time,
    failure,
    manners,
    read,
)

COURSE = 447

# The operators' own, as a statement of one text.
GROUPS = """
SELECT case
    when error_message ilike '%% 409 %%' then 'HTTP_409'
    when error_message ilike '%% 5__ %%' then 'HTTP_5XX'
    when error_message ilike '%%timeout%%' then 'TIMEOUT'
    when error_message ilike '%%job_lock active%%' then 'LOCK_CONFLICT'
    else 'OTHER'
  end FROM (SELECT %(text)s::text AS error_message) AS run_log
"""


FAILURES = [
    (Fault.status(409), FailureGroup.HTTP_409, "HTTP_409", "upstream HTTP 409 from /api/"),
    (Fault.status(500), FailureGroup.HTTP_5XX, "HTTP_5XX", "upstream HTTP 500 from /api/"),
    (Fault.status(504), FailureGroup.HTTP_5XX, "HTTP_5XX", "upstream HTTP 504 from /api/"),
    (Fault.maintenance(), FailureGroup.HTTP_5XX, "HTTP_5XX", "upstream HTTP 503 from "),
    (Fault.status(404), FailureGroup.HTTP_4XX, "OTHER", "upstream HTTP 404 from /api/"),
    (Fault.status(408), FailureGroup.HTTP_4XX, "OTHER", "upstream HTTP 408 from /api/"),
    (Fault.status(429), FailureGroup.HTTP_4XX, "OTHER", "upstream HTTP 429 from /api/"),
    (Fault.status(401), FailureGroup.CONFIGURATION, "OTHER", "upstream HTTP 401 from "),
    (Fault.status(403), FailureGroup.CONFIGURATION, "OTHER", "upstream HTTP 403 from "),
    (Fault.redirect("http://x/"), FailureGroup.CONFIGURATION, "OTHER", "upstream HTTP 302"),
    (Fault.page(), FailureGroup.OTHER, "OTHER", "unreadable answer from /api/"),
    (Fault.half(), FailureGroup.OTHER, "OTHER", "unreadable answer from /api/"),
    (Fault.answer(""), FailureGroup.OTHER, "OTHER", "unreadable answer from /api/"),
    (Fault.answer('{"a": 1}'), FailureGroup.OTHER, "OTHER", "unreadable answer from /api/"),
    (Fault.answer("garbage"), FailureGroup.OTHER, "OTHER", "unreadable answer from /api/"),
    (Fault.cut(), FailureGroup.OTHER, "OTHER", "the connection broke"),
    (Fault.cut(0.0), FailureGroup.OTHER, "OTHER", "the connection broke"),
]


@pytest.fixture
async def fake() -> AsyncIterator[FakeKvca]:
    async with FakeKvca() as fake:
        fake.add_course(CATEGORY, COURSE)
        for user in ("kim", "lee", "park"):
            fake.enrol(COURSE, user)
        yield fake


@pytest.fixture
def time() -> Time:
    return Time()


def client(fake: FakeKvca, time: Time, **changed: Any) -> Kvca:
    name, password = fake.login
    return Kvca(
        fake.url,
        username=name,
        password=SecretStr(password),
        manners=manners(time, **changed),
    )


@pytest.fixture
async def session(fake: FakeKvca, time: Time) -> AsyncIterator[KvcaSession]:
    lms = client(fake, time)
    async with lms.session() as session:
        yield session
    await lms.close()


class TestFailures:
    async def test_each_has_a_kind_and_words_that_the_operators_sql_groups_alike(
        self, fake: FakeKvca, session: KvcaSession, database: Database
    ) -> None:
        for fault, group, sql, begins in FAILURES:
            fake.fail(ROSTER, fault, times=None)
            error = await failure(session, COURSE)
            fake.heal()
            assert (error.group, str(error)[: len(begins)]) == (group, begins)
            for text in (str(error), f"{error} (course 447)"):
                assert await database.fetch(GROUPS, {"text": text}) == [(sql,)], text

    async def test_one_that_hangs_is_a_timeout(
        self, fake: FakeKvca, time: Time, database: Database
    ) -> None:
        lms = client(fake, time, timeout=SOON, retries=1)
        fake.fail(ROSTER, Fault.hang(), times=None)
        async with lms.session() as session:
            await session.courses(CATEGORY)
            error = await failure(session, COURSE)
        await lms.close()
        assert error.group is FailureGroup.TIMEOUT
        assert str(error).startswith("timeout: ")
        assert await database.fetch(GROUPS, {"text": str(error)}) == [("TIMEOUT",)]
        assert len(fake.calls_of(ROSTER)) == 2

    async def test_an_lms_that_is_down_is_told_in_words(self, fake: FakeKvca, time: Time) -> None:
        await fake.stop()
        lms = client(fake, time)
        assert await lms.diagnose() == (
            f"could not connect to the LMS ({LOGIN}): connection refused"
        )
        assert len(time.slept) == 3
        await lms.close()

    async def test_no_secret_and_no_body_is_in_any_text(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        await session.courses(CATEGORY)
        token = fake.calls_of(COURSES)[0].headers["Authorization"].removeprefix("Bearer ")
        body = f'{{"token": "{token}", "password": "{fake.login[1]}"}}'
        for fault in (Fault.answer(body), Fault.answer(body, code=403), Fault.status(409, body)):
            fake.fail(ROSTER, fault)
            text = str(await failure(session, COURSE))
            assert not any(word in text for word in (token, fake.login[1], "password"))


class TestRepeats:
    @pytest.mark.parametrize(
        "fault",
        [Fault.status(500), Fault.maintenance(), Fault.status(429), Fault.cut(0.0), Fault.cut(0.9)],
    )
    async def test_a_passing_failure_is_lived_through(
        self, fake: FakeKvca, session: KvcaSession, time: Time, fault: Fault
    ) -> None:
        fake.fail(ROSTER, fault, times=3)
        assert (await read(session, COURSE)).users == ["kim", "lee", "park"]
        assert time.slept == [0.5, 1.0, 2.0]

    @pytest.mark.parametrize("fault", [Fault.status(409), Fault.status(404), Fault.page()])
    async def test_a_lasting_one_is_not_repeated(
        self, fake: FakeKvca, session: KvcaSession, fault: Fault
    ) -> None:
        fake.fail(ROSTER, fault)
        await failure(session, COURSE)
        assert len(fake.calls_of(ROSTER)) == 1

    async def test_retry_after_is_heeded(
        self, fake: FakeKvca, session: KvcaSession, time: Time
    ) -> None:
        fake.fail(ROSTER, Fault.status(429, retry_after=7), Fault.status(503, retry_after=0))
        assert (await read(session, COURSE)).users == ["kim", "lee", "park"]
        assert time.slept == [7.0, 1.0]

    async def test_one_request_with_all_its_waits_stays_below_the_budget(
        self, fake: FakeKvca, time: Time
    ) -> None:
        lms = client(fake, time, budget=20.0, retries=100)
        fake.fail(ROSTER, Fault.status(503, retry_after=8), times=None)
        async with lms.session() as session:
            await session.courses(CATEGORY)
            began = time.now
            error = await failure(session, COURSE)
        await lms.close()
        assert error.group is FailureGroup.HTTP_5XX
        assert time.slept == [8.0, 8.0]
        assert time.now - began < 20.0

    async def test_a_retry_after_beyond_the_budget_is_not_waited_for(
        self, fake: FakeKvca, session: KvcaSession, time: Time
    ) -> None:
        fake.fail(ROSTER, Fault.status(429, retry_after=86400))
        error = await failure(session, COURSE)
        assert (error.group, time.slept) == (FailureGroup.HTTP_4XX, [])

    async def test_a_listing_that_breaks_off_is_read_again_and_nobody_comes_twice(
        self, fake: FakeKvca, session: KvcaSession
    ) -> None:
        for number in range(2000):
            fake.enrol(COURSE, f"user{number}")
        fake.fail(ROSTER, Fault.cut(0.7), Fault.cut(0.9))
        found = await read(session, COURSE)
        assert len(found.users) == len(set(found.users)) == 2003
        assert found.roster == Roster()

    async def test_one_who_changes_between_two_readings_is_no_contradiction(
        self, fake: FakeKvca
    ) -> None:
        for number in range(2000):
            fake.enrol(COURSE, f"user{number}")

        class Meanwhile(Time):
            async def sleep(self, seconds: float) -> None:
                fake.change(COURSE, "kim", status="GC")

        lms = client(fake, Meanwhile())
        fake.fail(ROSTER, Fault.cut(0.7))
        async with lms.session() as session:
            found = await read(session, COURSE)
        await lms.close()
        assert len(found.rows) == 2003
        assert [row.status for row in found.rows if row.user_id == "kim"] == ["DS"]
        assert found.roster == Roster()


class TestConcurrency:
    @pytest.mark.parametrize("name", [DETAIL, ROSTER])
    async def test_only_so_many_calls_wait_at_once(
        self, fake: FakeKvca, time: Time, name: str
    ) -> None:
        lms = client(fake, time, concurrency=2)
        async with lms.session() as session:
            row = (await read(session, COURSE)).rows[0]
            gate = fake.hold(name)
            asked: list[asyncio.Task[Any]] = []
            for _ in range(10):
                call = session.detail(CATEGORY, row) if name == DETAIL else read(session, COURSE)
                asked.append(asyncio.create_task(call))
            await gate.reached(2)
            gate.open()
            await asyncio.gather(*asked)
        await lms.close()
        assert fake.most_at_once == 2

    async def test_details_are_asked_while_a_listing_is_read(
        self, fake: FakeKvca, time: Time
    ) -> None:
        for number in range(2000):
            fake.enrol(COURSE, f"user{number}")
        lms = client(fake, time, concurrency=1)
        async with lms.session() as session:
            details: list[Mapping[str, Any]] = []
            listed = session.roster(CATEGORY, Course(str(COURSE)), limit=5, roster=Roster())
            async for row in listed:
                details.append(await session.detail(CATEGORY, row))  # noqa: PERF401
        await lms.close()
        assert len(details) == 5

    async def test_leaving_a_run_breaks_what_it_still_reads(
        self, fake: FakeKvca, time: Time
    ) -> None:
        broken = asyncio.Event()
        one = fake.row(COURSE, "kim")

        def endless() -> Iterator[Any]:
            try:
                for number in itertools.count():
                    yield {**one, "user": {"userId": f"user{number}"}}
            finally:
                broken.set()

        fake.list_long(COURSE, endless)
        lms = client(fake, time)
        async with lms.session() as session:
            listed = session.roster(CATEGORY, Course(str(COURSE)), limit=10**9, roster=Roster())
            await anext(aiter(listed))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await broken.wait()
        with pytest.raises(LmsError):
            _ = [row async for row in listed]
        await lms.close()


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("http://a..b", "LMS_BASE_URL cannot be called"),
        ("http://host:99999", "LMS_BASE_URL cannot be called"),
        ("http://[::1]:1", "could not connect to the LMS"),
    ],
)
async def test_an_address_that_leads_nowhere_is_told(time: Time, base_url: str, words: str) -> None:
    lms = Kvca(base_url, username="a", password=SecretStr("b"), manners=manners(time))
    assert words in (await lms.diagnose() or "")
    await lms.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer.cut(b"garbage\r\n\r\n"), "it is not HTTP"),
        (Answer.of(404), "LMS_BASE_URL must be what stands before /api"),
        (Answer.of(204), "it is empty"),
        (Answer.of(999), "upstream HTTP 999 from"),
        (Answer.of(200, b"not gzip", {"Content-Encoding": "gzip"}), "the connection broke"),
        (Answer.of(200, b" " * (ANSWER_LIMIT + 1)), "it is too long"),
    ],
)
async def test_whatever_answers_is_told_in_words(time: Time, answer: Answer, words: str) -> None:
    async with HttpSink() as sink:
        sink.answer(answer)
        lms = Kvca(sink.url, username="a", password=SecretStr("b"), manners=manners(time))
        assert words in (await lms.diagnose() or "")
        await lms.close()


async def test_a_base_url_may_have_a_path(fake: FakeKvca, time: Time) -> None:
    name, password = fake.login
    lms = Kvca(
        f"{fake.url}/lms", username=name, password=SecretStr(password), manners=manners(time)
    )
    await lms.diagnose()
    assert fake.calls[0].name == f"/lms{LOGIN}"
    await lms.close()


async def test_diagnosis_logs_in_and_lists(fake: FakeKvca, time: Time) -> None:
    lms = client(fake, time)
    assert await lms.diagnose() is None
    assert [call.name for call in fake.calls] == [LOGIN, CATEGORIES]
    fake.login = ("allim", "changed")
    assert await lms.diagnose() == (
        f"upstream HTTP 401 from {LOGIN}: the login was refused; check LMS_USERNAME and"
        " LMS_PASSWORD"
    )
    await lms.close()


@pytest.mark.parametrize("charset", ["utf-8", "euc-kr", "cp949"])
async def test_korean_charsets_are_read(fake: FakeKvca, time: Time, charset: str) -> None:
    rows = json.dumps(fake.rows(COURSE), ensure_ascii=False)
    fault = Fault(
        Fault.answer("").way,
        body=rows.encode(charset),
        content_type=f"application/json; charset={charset}",
    )
    fake.fail(ROSTER, fault)
    lms = client(fake, time)
    async with lms.session() as session:
        rows_read = (await read(session, COURSE)).rows
    await lms.close()
    assert [row.status_msg for row in rows_read] == ["대기"] * 3
