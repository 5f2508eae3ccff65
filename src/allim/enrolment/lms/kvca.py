"""The client of a kvca LMS: every call is a POST of JSON, answers have no envelope."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import lru_cache
from typing import Any, Self

from pydantic import SecretStr

from allim.base.clock import KST
from allim.enrolment.lms import failures
from allim.enrolment.lms.fields import (
    as_email,
    as_id,
    as_text,
    kept_fields,
    korean_time,
    plain_fields,
)
from allim.enrolment.lms.http import Call, Calls, Connections
from allim.enrolment.lms.kvca_login import KvcaLogin
from allim.enrolment.lms.patience import Manners
from allim.enrolment.lms.protocol import Course, LmsError, Roster, StatusRow
from allim.enrolment.lms.tally import Tally

CATEGORIES = "/api/category/list"
COURSES = "/api/course/category/course"
ROSTER = "/api/course/classStatusAll"
DETAIL = "/api/enrolment/getEnrolmentUserInfo"

USER_FIELDS = ("userId", "email", "userName", "companyName", "deptName", "jobPosition")
STATUS_FIELDS = ("status", "statusmsg", "codename")
"""With the three dates, what an enrolment's change is found by. `update_time` changes without
anything having changed, and what else a payload may hold is not known to mean anything."""
NAMES_OF_COURSES = ("coursename", "courseName", "name", "title")


class Kvca:
    """The LMS. Each run logs in for itself; connections are kept between them."""

    kind = "kvca"

    def __init__(
        self, base_url: str, *, username: str, password: SecretStr, manners: Manners | None = None
    ) -> None:
        self._connections = Connections(base_url)
        self._username = username
        self._password = password
        self._manners = manners or Manners()

    def session(self) -> KvcaSession:
        """Begin a run's conversation (logs in when first asked something)."""
        calls = Calls(self._connections, self._manners)
        login = KvcaLogin(
            calls, username=self._username, password=self._password, clock=self._manners.clock
        )
        return KvcaSession(calls, login)

    async def diagnose(self) -> str | None:
        """Try the login and the listing of categories; what is wrong, or None."""
        async with self.session() as session:
            try:
                await session.categories()
            except LmsError as error:
                return str(error)
        return None

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()


class KvcaSession:
    """One run's conversation with it."""

    def __init__(self, calls: Calls, login: KvcaLogin) -> None:
        self._calls = calls
        self._login = login

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._calls.close()
        await self._login.close()

    async def categories(self) -> set[str]:
        """The ids of every category that this account sees."""
        answer = await self._ask(CATEGORIES, {"categoryid": "all"})
        if not isinstance(answer, list):
            raise failures.unreadable(CATEGORIES, "not an array")
        return {
            found for item in answer if isinstance(item, dict) and (found := as_id(item.get("id")))
        }

    async def courses(self, category_id: int) -> Sequence[Course]:
        """Every course of a category, each once. Raises LmsError where there is no such one."""
        answer = await self._ask(COURSES, {"categoryid": category_id})
        courses = {course.id: course for course in map(_course, _listed(answer))}
        if not courses and str(category_id) not in await self.categories():
            raise failures.unknown_category(category_id)
        return list(courses.values())

    async def roster(
        self, category_id: int, course: Course, *, limit: int, roster: Roster
    ) -> AsyncIterator[StatusRow]:
        """A course's enrolments, streamed. Of a user listed twice the first row counts."""
        tally, given = Tally(), 0
        asked = {"courseid": _as_it_came(course.id)}
        call = Call(ROSTER, ROSTER, json=asked, login=self._login)
        async with aclosing(self._calls.array(call, begun_again=tally.begin_again)) as listing:
            async for items in listing:
                for item in items:
                    row = _status_row(item)
                    if isinstance(row, str):
                        tally.leave_out(row)
                    elif tally.admits(row):
                        if given == limit:
                            roster.complete, roster.truncated = False, True
                            tally.conclude(roster)
                            return
                        given += 1
                        yield row
        tally.conclude(roster)

    async def detail(self, category_id: int, row: StatusRow) -> Mapping[str, Any]:
        """What is told of one user."""
        answer = await self._ask(DETAIL, {"termId": category_id, "userId": row.user_id})
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        if not isinstance(answer, dict):
            raise failures.unreadable(DETAIL, "not an object")
        return plain_fields(answer)

    async def _ask(self, path: str, asked: Mapping[str, Any]) -> Any:
        return await self._calls.json(Call(path, path, json=asked, login=self._login))


def _listed(answer: Any) -> list[Any]:
    """The courses of an answer: an array, or the values of an object with changing keys.

    Beside courses such an object may hold plain values; one of nothing else is no listing.
    """
    if isinstance(answer, list):
        return answer
    if not isinstance(answer, dict):
        raise failures.unreadable(COURSES, "neither an array nor an object")
    courses = [value for value in answer.values() if isinstance(value, (dict, list))]
    if answer and not courses:
        raise failures.unreadable(COURSES, "an object without courses")
    return courses


def _course(given: Any) -> Course:
    """A course. One without an id fails the listing: leaving it out would miss all its users."""
    number = None
    if isinstance(given, dict):
        number = as_id(given.get("courseid")) or as_id(given.get("id"))
    if number is None:
        raise failures.unreadable(COURSES, "a course has neither courseid nor id")
    names = (as_text(given.get(name)) for name in NAMES_OF_COURSES)
    return Course(number, next((name for name in names if name), None))


def _as_it_came(number: str) -> int | str:
    """An id as kvca wants it: a number where it is one."""
    return int(number) if number.isascii() and number.isdigit() else number


def _status_row(given: Any) -> StatusRow | str:
    """An enrolment, or what is wrong with a row that is none."""
    user = given.get("user") if isinstance(given, dict) else None
    status = given.get("classStatus") if isinstance(given, dict) else None
    if not isinstance(user, dict) or not isinstance(status, dict):
        return "without user or classStatus"
    fields = kept_fields(USER_FIELDS, user)
    user_id = as_id(fields.get("userId")) or as_email(fields.get("email"))
    if user_id is None:
        return "without userId and email"
    fields.update(kept_fields(STATUS_FIELDS, status))
    return StatusRow(
        user_id=user_id,
        fields=fields,
        status=as_text(fields.get("status")),
        status_msg=as_text(fields.get("statusmsg")),
        ds_date=_keep_date("ds_date", status, fields),
        gc_date=_keep_date("gc_date", status, fields),
        sjc_date=_keep_date("sjc_date", status, fields),
        update_time=korean_time(as_text(status.get("update_time"))),
        user_name=as_text(fields.get("userName")),
    )


def _keep_date(name: str, status: Mapping[str, Any], fields: dict[str, Any]) -> datetime | None:
    """A date, kept in one form however it came; one that nobody can read stays as it came."""
    given = as_text(status.get(name))
    if given is None:
        return None
    moment, fields[name] = _dated(given)
    return moment


@lru_cache(maxsize=8192)
def _dated(text: str) -> tuple[datetime | None, str]:
    moment = korean_time(text)
    if moment is None:
        return None, text
    return moment, moment.astimezone(KST).replace(tzinfo=None).isoformat(" ", "seconds")
