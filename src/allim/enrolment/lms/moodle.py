"""The client of a Moodle: its REST web service, whose errors come with HTTP 200.

Moodle knows no dates of an enrolment and no status but two: active or suspended, which a second
listing of the active ones tells, and completed, which costs a call for each user.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Self, TypeAlias

from pydantic import SecretStr

from allim.enrolment.lms import failures
from allim.enrolment.lms.fields import as_id, as_text
from allim.enrolment.lms.http import Call, Calls, Connections
from allim.enrolment.lms.moodle_errors import (
    NO_CRITERIA,
    NOT_TRACKED,
    MoodleError,
    array_of,
    without_exception,
)
from allim.enrolment.lms.moodle_rows import USER_FIELDS, ListedUser, status_row
from allim.enrolment.lms.patience import Manners
from allim.enrolment.lms.protocol import Course, LmsError, Roster, StatusRow
from allim.enrolment.lms.tally import Tally

SERVER = "/webservice/rest/server.php"
CATEGORIES = "core_course_get_categories"
COURSES = "core_course_get_courses_by_field"
ROSTER = "core_enrol_get_enrolled_users"
COMPLETION = "core_completion_get_course_completion_status"

PAGE = 500
"""Users asked for at once."""
OVERLAP = 50
"""A page begins with this part of the one before it."""
PAGES_WITHOUT_NEWS = 3
"""So many pages of nobody new: it does not page at all."""
ACTIVE_READINGS = 3
HELD_AT_MOST = 5000
"""Users who seem to be suspended, before that is looked into."""

FEWEST_FIELDS = ("id", "fullname")
"""Moodle refuses to answer without a full name."""

Listed: TypeAlias = dict[str, Any]


class Moodle:
    """The LMS. `completion`: ask for each user whether the course is completed."""

    kind = "moodle"

    def __init__(
        self,
        base_url: str,
        *,
        token: SecretStr,
        completion: bool = False,
        page: int = PAGE,
        manners: Manners | None = None,
    ) -> None:
        self._connections = Connections(base_url)
        self._token = token
        self._completion = completion
        self._page = page
        self._manners = manners or Manners()

    def session(self) -> MoodleSession:
        """Begin a run's conversation."""
        calls = Calls(self._connections, self._manners)
        return MoodleSession(calls, self._token, completion=self._completion, page=self._page)

    async def diagnose(self) -> str | None:
        """Try the token on the listing of categories; what is wrong, or None."""
        async with self.session() as session:
            try:
                await session.categories(parent=0)
            except LmsError as error:
                return str(error)
        return None

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()


class MoodleSession:
    """One run's conversation with it."""

    def __init__(self, calls: Calls, token: SecretStr, *, completion: bool, page: int) -> None:
        if page < 2:
            raise ValueError("pages overlap: two users is the least")
        self._calls = calls
        self._token = token
        self._completion = completion
        self._page = page

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._calls.close()

    async def categories(self, **criteria: int) -> list[str]:
        """The ids of the categories that fit, and of all below them."""
        asked: dict[str, Any] = {"addsubcategories": 1}
        for position, (key, value) in enumerate(criteria.items()):
            asked |= {f"criteria[{position}][key]": key, f"criteria[{position}][value]": value}
        answer = array_of(await self._ask(CATEGORIES, asked), _place(CATEGORIES))
        return [found for item in answer if (found := as_id(item.get("id")))]

    async def courses(self, category_id: int) -> Sequence[Course]:
        """Every course of a category and those below it. Raises LmsError for an unknown one."""
        below = await self.categories(parent=category_id)
        courses: dict[str, Course] = {}
        for category in dict.fromkeys([str(category_id), *below]):
            answer = await self._ask(COURSES, {"field": "category", "value": category})
            if not isinstance(answer, dict):
                raise failures.unreadable(_place(COURSES), "not an object")
            for item in array_of(answer.get("courses"), _place(COURSES)):
                number = as_id(item.get("id"))
                if number is None:
                    raise failures.unreadable(_place(COURSES), "a course has no id")
                courses[number] = Course(number, as_text(item.get("fullname")))
        if not courses and not below and not await self.categories(id=category_id):
            raise failures.unknown_category(category_id)
        return list(courses.values())

    async def roster(
        self, category_id: int, course: Course, *, limit: int, roster: Roster
    ) -> AsyncIterator[StatusRow]:
        """A course's users, page by page; those whose enrolment is suspended come last."""
        tally, given, tracked = Tally(), 0, self._completion
        async with aclosing(self._judged(course, tally)) as batches:
            async for batch in batches:
                completed: Mapping[str, bool] | None = None
                if tracked:
                    completed = await self._completed(course, [known.id for known in batch])
                    tracked = completed is not None
                for known in batch:
                    if given == limit:
                        roster.complete, roster.truncated = False, True
                        tally.conclude(roster)
                        return
                    given += 1
                    yield status_row(known, (completed or {}).get(known.id))
        tally.conclude(roster)

    async def detail(self, category_id: int, row: StatusRow) -> Mapping[str, Any]:
        """What the listing told of the user."""
        return row.detail or {}

    async def _judged(self, course: Course, tally: Tally) -> AsyncGenerator[list[ListedUser]]:
        """A course's users, each once, with what their enrolment is.

        One that is not among the active ones may have begun after those were read. So such
        users are held until the active ones have been read again.
        """
        active = await self._active(course)
        held: dict[str, Listed] = {}
        async with aclosing(self._pages(course, USER_FIELDS, tally)) as pages:
            async for page in pages:
                yield [
                    ListedUser(number, page[number], True) for number in page if number in active
                ]
                held.update((number, page[number]) for number in page if number not in active)
                if len(held) >= HELD_AT_MOST:
                    yield await self._judged_again(course, held)
                    held.clear()
        if held:
            yield await self._judged_again(course, held)

    async def _judged_again(self, course: Course, held: Mapping[str, Listed]) -> list[ListedUser]:
        active = await self._active(course)
        return [ListedUser(number, user, number in active) for number, user in held.items()]

    async def _active(self, course: Course) -> set[str]:
        """The ids of the users whose enrolment is active; read again if it shifted meanwhile."""
        for _ in range(ACTIVE_READINGS):
            tally = Tally()
            found: set[str] = set()
            async with aclosing(self._pages(course, FEWEST_FIELDS, tally, onlyactive=1)) as pages:
                async for page in pages:
                    found.update(page)
            if not tally.shifts:
                return found
        raise failures.unreadable(_place(ROSTER), "it changes too fast to be read")

    async def _pages(
        self, course: Course, fields: Sequence[str], tally: Tally, **options: int
    ) -> AsyncGenerator[Mapping[str, Listed]]:
        """A listing's pages by id, each user once, until a page is empty.

        A short page is not the last: hidden users are left out of it.

        When somebody leaves a course while it is read, everybody after moves up by one, and the
        next page would begin too late. So pages overlap a little, and where the last user of one
        is not in the next, the tally hears of it. (Not after a page of which more than half is
        left out: that would read it over and over.)
        """
        begin, last, idle = 0, None, 0
        seen: set[str] = set()
        while True:
            page = await self._enrolled(course, fields, begin=begin, **options)
            if not page:
                return
            fresh: dict[str, Listed] = {}
            ids = [as_id(user.get("id")) for user in page]
            for number, user in zip(ids, page, strict=True):
                if number is None:
                    tally.leave_out("without id")
                elif number not in seen:
                    fresh[number] = user
            if last is not None and last not in ids:
                tally.shifted()
            idle = 0 if fresh else idle + 1
            if idle >= PAGES_WITHOUT_NEWS:
                raise failures.unreadable(_place(ROSTER), "its pages repeat themselves")
            seen.update(fresh)
            if fresh:
                yield fresh
            overlaps = len(page) > self._page // 2
            last = ids[-1] if overlaps else None
            begin += len(page) - max(self._page // OVERLAP, 1) if overlaps else self._page

    async def _enrolled(
        self, course: Course, fields: Sequence[str], *, begin: int, **options: int
    ) -> list[Listed]:
        named: dict[str, Any] = {
            "userfields": ",".join(fields),
            "sortby": "id",
            "limitfrom": begin,
            "limitnumber": self._page,
            **options,
        }
        asked: dict[str, Any] = {"courseid": course.id}
        for position, (name, value) in enumerate(named.items()):
            asked[f"options[{position}][name]"] = name
            asked[f"options[{position}][value]"] = value
        return array_of(await self._ask(ROSTER, asked), _place(ROSTER))

    async def _completed(self, course: Course, users: Collection[str]) -> Mapping[str, bool] | None:
        """Who has completed a course, as far as that is tracked; None where it is not at all."""
        try:
            async with asyncio.TaskGroup() as group:
                asked = {u: group.create_task(self._has_completed(course, u)) for u in users}
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            if isinstance(first, MoodleError) and first.code in NO_CRITERIA:
                return None
            raise first from None
        return {u: done for u, task in asked.items() if (done := task.result()) is not None}

    async def _has_completed(self, course: Course, user: str) -> bool | None:
        try:
            answer = await self._ask(COMPLETION, {"courseid": course.id, "userid": user})
        except MoodleError as error:
            if error.code in NOT_TRACKED:
                return None
            raise
        told = answer.get("completionstatus") if isinstance(answer, dict) else None
        if not isinstance(told, dict) or not isinstance(told.get("completed"), (bool, int)):
            raise failures.unreadable(_place(COMPLETION), "without completionstatus")
        return bool(told["completed"])

    async def _ask(self, function: str, asked: Mapping[str, Any]) -> Any:
        place = _place(function)
        form = {
            "wstoken": self._token.get_secret_value(),
            "wsfunction": function,
            "moodlewsrestformat": "json",
            **{name: str(value) for name, value in asked.items()},
        }
        return await self._calls.json(
            Call(SERVER, place, form=form), partial(without_exception, place=place)
        )


def _place(function: str) -> str:
    return f"{SERVER} ({function})"
