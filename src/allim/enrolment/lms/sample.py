"""A small built-in data set that changes from run to run: for trying things out without an LMS.

What a run sees is decided by how many runs of the category have succeeded before it, and by
nothing else: any process on any machine sees the same, and a run that failed or was killed is
seen again by the next. There is one category, 303.

| run | what has changed since the one before |
| --- | --- |
| 1st | (the beginning) two courses with eleven enrolments of nine users |
| 2nd | 이서연 has paid (DS → GC); 최지우's payment was taken back (GC → SJC, its date stays); |
|     | 한소희 is new; 정하준 is gone; 박도윤 has another telephone number |
| 3rd | 정하준 is back; 김민준 is approved; a third course has begun, with two enrolments |
| 4th and after | 강수아's payment comes and goes, at every run |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self, TypeAlias

from allim.base.clock import KST
from allim.enrolment.lms import failures
from allim.enrolment.lms.protocol import Course, Roster, StatusRow

CATEGORY = 303
STATUS_MESSAGES = {"DS": "대기", "GC": "결제완료", "SJC": "승인예정"}

PYTHON = Course("447", "파이썬 데이터 분석 입문")
SAFETY = Course("448", "산업안전보건 기초")
CLOUD = Course("449", "클라우드 운영 실무")

FinishedRuns: TypeAlias = Callable[[int], Awaitable[int]]
"""How many runs of a category have succeeded so far."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A user in a course; the dates are what a kvca LMS has."""

    course: Course
    user_id: str
    status: str = "DS"
    ds_date: str | None = "2026-03-02 09:10:00"
    gc_date: str | None = None
    sjc_date: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """A user."""

    name: str
    company: str
    phone: str


PEOPLE = {
    "kim.minjun": Person("김민준", "한빛소프트", "010-2000-0001"),
    "lee.seoyeon": Person("이서연", "한빛소프트", "010-2000-0002"),
    "park.doyun": Person("박도윤", "누리건설", "010-2000-0003"),
    "choi.jiwoo": Person("최지우", "누리건설", "010-2000-0004"),
    "jung.hajun": Person("정하준", "다온물류", "010-2000-0005"),
    "kang.sua": Person("강수아", "다온물류", "010-2000-0006"),
    "yoon.jiho": Person("윤지호", "가람전자", "010-2000-0007"),
    "lim.chaewon": Person("임채원", "가람전자", "010-2000-0008"),
    "oh.yejun": Person("오예준", "가람전자", "010-2000-0009"),
    "han.sohee": Person("한소희", "한빛소프트", "010-2000-0010"),
}

PAID = "2026-03-05 14:20:00"

BEGINNING = (
    Enrolment(PYTHON, "kim.minjun", "GC", gc_date=PAID),
    Enrolment(PYTHON, "lee.seoyeon"),
    Enrolment(PYTHON, "park.doyun"),
    Enrolment(PYTHON, "choi.jiwoo", "GC", gc_date=PAID),
    Enrolment(PYTHON, "jung.hajun"),
    Enrolment(PYTHON, "kang.sua"),
    Enrolment(SAFETY, "park.doyun", "SJC", sjc_date="2026-03-06 10:00:00"),
    Enrolment(SAFETY, "yoon.jiho"),
    Enrolment(SAFETY, "lim.chaewon", "GC", gc_date=PAID),
    Enrolment(SAFETY, "oh.yejun"),
    Enrolment(SAFETY, "kim.minjun"),
)


class Sample:
    """The LMS. Without `finished_runs` every run is the first."""

    kind = "sample"

    def __init__(self, finished_runs: FinishedRuns | None = None) -> None:
        self._finished_runs = finished_runs

    def session(self) -> SampleSession:
        """Begin a run's conversation."""
        return SampleSession(self._finished_runs)

    async def diagnose(self) -> str | None:
        """There is nothing that could be wrong."""
        return None

    async def close(self) -> None:
        """There is nothing to close."""


class SampleSession:
    """One run's conversation: what it sees does not change while it goes on."""

    def __init__(self, finished_runs: FinishedRuns | None) -> None:
        self._finished_runs = finished_runs
        self._step: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Nothing to give back."""

    async def courses(self, category_id: int) -> Sequence[Course]:
        """The courses that there are at this run. Raises LmsError for any other category."""
        if category_id != CATEGORY:
            raise failures.unknown_category(category_id)
        return list(dict.fromkeys(e.course for e in enrolments(await self._at(category_id))))

    async def roster(
        self, category_id: int, course: Course, *, limit: int, roster: Roster
    ) -> AsyncIterator[StatusRow]:
        """A course's enrolments at this run."""
        all_of_them = enrolments(await self._at(category_id))
        listed = [e for e in all_of_them if e.course.id == course.id]
        if len(listed) > limit:
            roster.complete, roster.truncated = False, True
        for enrolment in listed[:limit]:
            yield _status_row(enrolment)

    async def detail(self, category_id: int, row: StatusRow) -> Mapping[str, Any]:
        """A user's detail at this run."""
        person = PEOPLE[row.user_id]
        phone = person.phone
        if row.user_id == "park.doyun" and await self._at(category_id) >= 1:
            phone = "010-2999-0003"
        return {"userId": row.user_id, "userName": person.name, "phone": phone}

    async def _at(self, category_id: int) -> int:
        if self._step is None:
            counted = 0
            if self._finished_runs is not None:
                counted = await self._finished_runs(category_id)
            self._step = counted
        return self._step


def enrolments(step: int) -> list[Enrolment]:
    """Every enrolment as it is after so many runs."""
    known = {(e.course, e.user_id): e for e in BEGINNING}

    def change(course: Course, user_id: str, **fields: Any) -> None:
        known[course, user_id] = replace(known[course, user_id], **fields)

    if step >= 1:
        change(PYTHON, "lee.seoyeon", status="GC", gc_date="2026-03-09 11:32:00")
        change(PYTHON, "choi.jiwoo", status="SJC", sjc_date="2026-03-09 11:40:00")
        known[PYTHON, "han.sohee"] = Enrolment(PYTHON, "han.sohee", ds_date="2026-03-09 12:01:00")
        del known[PYTHON, "jung.hajun"]
    if step >= 2:
        known[PYTHON, "jung.hajun"] = Enrolment(PYTHON, "jung.hajun")
        change(SAFETY, "kim.minjun", status="SJC", sjc_date="2026-03-10 09:15:00")
        known[CLOUD, "lim.chaewon"] = Enrolment(CLOUD, "lim.chaewon", "GC", gc_date=PAID)
        known[CLOUD, "oh.yejun"] = Enrolment(CLOUD, "oh.yejun")
    if step >= 3:
        paid = {"status": "GC", "gc_date": "2026-03-11 16:00:00"}
        change(PYTHON, "kang.sua", **(paid if step % 2 else {"status": "DS", "gc_date": None}))
    return list(known.values())


def _status_row(enrolment: Enrolment) -> StatusRow:
    person = PEOPLE[enrolment.user_id]
    fields = {
        "userId": enrolment.user_id,
        "email": f"{enrolment.user_id}@example.com",
        "userName": person.name,
        "companyName": person.company,
        "status": enrolment.status,
        "statusmsg": STATUS_MESSAGES[enrolment.status],
        "ds_date": enrolment.ds_date,
        "gc_date": enrolment.gc_date,
        "sjc_date": enrolment.sjc_date,
    }
    return StatusRow(
        user_id=enrolment.user_id,
        fields={name: value for name, value in fields.items() if value is not None},
        status=enrolment.status,
        status_msg=STATUS_MESSAGES[enrolment.status],
        ds_date=_moment(enrolment.ds_date),
        gc_date=_moment(enrolment.gc_date),
        sjc_date=_moment(enrolment.sjc_date),
        user_name=person.name,
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).replace(tzinfo=KST) if text else None
