"""An LMS in memory, for tests of what is built on one; it speaks the clients' protocol.

lms = MemoryLms()
lms.enrol(303, "447", "kim01", {"status": "DS"}, name="김민수")
... sync ...
lms.enrol(303, "447", "kim01", {"status": "GC"}, name="김민수")
lms.breaks["447"] = 2       # its next listing breaks off after two rows
... sync again ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from allim.base.clock import KST
from allim.enrolment.lms.protocol import Course, FailureGroup, LmsError, Roster, StatusRow

SERVER_ERROR = LmsError(FailureGroup.HTTP_5XX, "upstream HTTP 503 from memory://lms")

Step = Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class _Enrolment:
    fields: dict[str, Any]
    name: str | None


@dataclass(slots=True)
class MemoryLms:
    """Categories of courses of users. Faults are keyed by course or user, and stay until taken out.

    `categories`: category → course → user → enrolment. `users`: user → detail.
    """

    kind: str = "memory"
    categories: dict[int, dict[str, dict[str, _Enrolment]]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    no_courses: LmsError | None = None
    """What asking for the courses raises."""
    breaks: dict[str, int] = field(default_factory=dict)
    """Courses whose listing fails after so many rows."""
    incomplete: set[str] = field(default_factory=set)
    """Courses whose listing says that rows were left out."""
    no_detail: set[str] = field(default_factory=set)
    """Users whose detail fails."""
    repeats: set[str] = field(default_factory=set)
    """Courses that list everybody twice, which no client of ours would do."""
    error: Exception = field(default_factory=lambda: SERVER_ERROR)
    """What a fault raises."""
    asked_details: list[str] = field(default_factory=list)
    step: Step | None = None
    """Awaited before each answer, told what is asked: ``courses``, ``roster 447``, …"""

    def enrol(
        self,
        category: int,
        course: str,
        user: str,
        fields: Mapping[str, Any],
        *,
        name: str | None = None,
    ) -> None:
        """Put a user into a course, or say something else of one who is in it."""
        self.categories.setdefault(category, {}).setdefault(course, {})[user] = _Enrolment(
            dict(fields), name
        )
        self.users.setdefault(user, {"user": user})

    def leave(self, category: int, course: str, user: str) -> None:
        """Take a user out of a course."""
        del self.categories[category][course][user]

    def session(self) -> MemorySession:
        """Begin a conversation."""
        return MemorySession(self)

    async def diagnose(self) -> str | None:
        """Nothing is ever wrong with it."""
        return None

    async def close(self) -> None:
        """Nothing is open."""


class MemorySession:
    """A conversation with an LMS in memory."""

    def __init__(self, lms: MemoryLms) -> None:
        self._lms = lms

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        return None

    async def courses(self, category_id: int) -> Sequence[Course]:
        """The courses, or the fault that was asked for."""
        await self._step("courses")
        if self._lms.no_courses is not None:
            raise self._lms.no_courses
        courses = self._lms.categories.get(category_id, {})
        return [Course(course, self._lms.names.get(course)) for course in courses]

    async def roster(
        self, category_id: int, course: Course, *, limit: int, roster: Roster
    ) -> AsyncIterator[StatusRow]:
        """The enrolments of a course."""
        await self._step(f"roster {course.id}")
        enrolments = list(self._lms.categories[category_id][course.id].items())
        if course.id in self._lms.repeats:
            enrolments += enrolments
        for told, (user, enrolment) in enumerate(enrolments):
            if self._lms.breaks.get(course.id) == told:
                raise self._lms.error
            if told == limit:
                roster.truncated, roster.complete = True, False
                return
            yield _row(user, enrolment)
        if course.id in self._lms.breaks:
            raise self._lms.error
        if course.id in self._lms.incomplete:
            roster.complete = False
            roster.problems.append("rows were left out")

    async def detail(self, category_id: int, row: StatusRow) -> Mapping[str, Any]:
        """A user's detail."""
        await self._step(f"detail {row.user_id}")
        self._lms.asked_details.append(row.user_id)
        if row.user_id in self._lms.no_detail:
            raise self._lms.error
        return self._lms.users[row.user_id]

    async def _step(self, what: str) -> None:
        if self._lms.step is not None:
            await self._lms.step(what)


def _row(user: str, enrolment: _Enrolment) -> StatusRow:
    fields = {name: value for name, value in enrolment.fields.items() if name != "update_time"}
    return StatusRow(
        user_id=user,
        fields=fields,
        status=fields.get("status"),
        status_msg=fields.get("statusmsg"),
        ds_date=_moment(fields.get("ds_date")),
        gc_date=_moment(fields.get("gc_date")),
        sjc_date=_moment(fields.get("sjc_date")),
        update_time=_moment(enrolment.fields.get("update_time")),
        user_name=enrolment.name,
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).replace(tzinfo=KST) if text else None
