"""A fake kvca LMS: logins with tokens that end, categories, courses, enrolments, details."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from aiohttp import web

from allim.testing.lms.server import Call, FakeLms, Reply

LOGIN = "/api/auth/login"
CATEGORIES = "/api/category/list"
COURSES = "/api/course/category/course"
ROSTER = "/api/course/classStatusAll"
DETAIL = "/api/enrolment/getEnrolmentUserInfo"

STATUS_MESSAGES = {"DS": "대기", "GC": "결제완료", "SJC": "승인예정"}
NO_DATE = "empty"


class FakeKvca(FakeLms):
    """The server. Its data are plain dicts, as they go over the wire; change them as you like.

    `enrol`, `change` and `drop` are for the usual; `rows(course)` is the listing itself, for
    duplicates, rows without an id and other oddities, `details` what is told of single users.
    """

    kind: ClassVar[str] = "kvca"

    def __init__(self, *, login: tuple[str, str] = ("allim", "sesame-2026")) -> None:
        super().__init__()
        self.login = login
        """The user name and the password that it wants."""
        self.token_seconds = 3600.0
        """How long tokens given out from now on are said to be good."""
        self.honours_expiry = True
        """Refuse tokens that have ended; not so a server whose clock is wrong."""
        self.courses_as_array = False
        """Answer courses as an array, not as an object with changing keys."""
        self.course_id_name = "courseid"
        """What a course's id is called: `courseid` or `id`."""
        self.categories: dict[int, list[int]] = {}
        """Category to its courses; a course may stand under several."""
        self.names: dict[int, str] = {}
        self.details: dict[str, dict[str, Any]] = {}
        """What getEnrolmentUserInfo tells of a user; made up where it is not here."""
        self._rows: dict[int, list[dict[str, Any]]] = {}
        self._long_rows: dict[int, Callable[[], Iterable[Any]]] = {}
        self._tokens: dict[str, float] = {}
        self._numbers = itertools.count(1)

    def environment(self) -> dict[str, str]:
        """The settings that lead to this server."""
        return {
            "LMS_KIND": self.kind,
            "LMS_BASE_URL": self.url,
            "LMS_USERNAME": self.login[0],
            "LMS_PASSWORD": self.login[1],
        }

    def forget_tokens(self) -> None:
        """Refuse every token given out so far with 401."""
        self._tokens.clear()

    @property
    def logins(self) -> int:
        """How often somebody tried to log in."""
        return len(self.calls_of(LOGIN))

    def add_category(self, category: int) -> None:
        """A category, without courses as yet."""
        self.categories.setdefault(category, [])

    def add_course(self, category: int, course: int, name: str | None = None) -> None:
        """A course of a category; add it to another one as well if you like."""
        self.add_category(category)
        if course not in self.categories[category]:
            self.categories[category].append(course)
        self.names[course] = name or self.names.get(course) or f"과정 {course}"
        self._rows.setdefault(course, [])

    def enrol(self, course: int, user: str, **fields: Any) -> dict[str, Any]:
        """Enrol a user; `fields` as in `change`. The row as it goes over the wire."""
        number = next(self._numbers)
        row: dict[str, Any] = {
            "user": {
                "userId": user,
                "email": f"{user}@example.com",
                "userName": f"수강생{number}",
                "companyName": "한빛상사",
                "deptName": "개발팀",
                "jobPosition": "대리",
                "userPassword": "$2a$10$secret-of-a-user",
            },
            "classStatus": {
                "status": "DS",
                "statusmsg": STATUS_MESSAGES["DS"],
                "codename": "수강신청",
                "ds_date": "2026-03-01 09:00:00",
                "gc_date": NO_DATE,
                "sjc_date": NO_DATE,
                "update_time": "2026-03-01 09:00:00",
            },
        }
        _set(row, fields)
        self._rows[course].append(row)
        return row

    def change(self, course: int, user: str, **fields: Any) -> dict[str, Any]:
        """Change an enrolment's fields, those of its user or of its status; returns the row.

        A new `status` brings its usual `statusmsg`, if that is not given.
        """
        row = self.row(course, user)
        _set(row, fields)
        return row

    def drop(self, course: int, user: str) -> None:
        """End an enrolment: it is no longer listed."""
        self._rows[course].remove(self.row(course, user))

    def row(self, course: int, user: str) -> dict[str, Any]:
        """The row of one user's enrolment."""
        return next(r for r in self._rows[course] if r["user"].get("userId") == user)

    def rows(self, course: int) -> list[dict[str, Any]]:
        """A course's listing itself, to be changed in place."""
        return self._rows[course]

    def list_long(self, course: int, make_rows: Callable[[], Iterable[Any]]) -> None:
        """List what this makes, row by row, so that it is never in memory as a whole."""
        self._long_rows[course] = make_rows

    async def read(self, request: web.BaseRequest) -> tuple[str, dict[str, Any]]:
        """The path, and the JSON body."""
        try:
            asked = json.loads(await request.read() or b"{}")
        except ValueError:
            asked = {}
        return request.path, asked if isinstance(asked, dict) else {}

    def reply(self, call: Call) -> Reply:
        """What kvca answers."""
        if call.name == LOGIN:
            return self._log_in(call)
        token = call.headers.get("Authorization", "").removeprefix("Bearer ")
        ends = self._tokens.get(token)
        if ends is None or (self.honours_expiry and ends <= time.time()):
            return Reply({"error": "Unauthorized"}, 401)
        match call.name:
            case _ if call.name == CATEGORIES:
                return Reply([{"id": number, "name": f"{number}기"} for number in self.categories])
            case _ if call.name == COURSES:
                return Reply(self._courses(_number(call.asked.get("categoryid"))))
            case _ if call.name == ROSTER:
                course = _number(call.asked.get("courseid"))
                long = self._long_rows.get(course)
                return Reply(self._rows.get(course, []) if long is None else iter(long()))
            case _ if call.name == DETAIL:
                user = str(call.asked.get("userId"))
                return Reply(self.details.get(user) or self._detail(user))
        return Reply({"error": "Not Found"}, 404)

    def _log_in(self, call: Call) -> Reply:
        if (call.asked.get("userId"), call.asked.get("userPassword")) != self.login:
            return Reply({"error": "Bad credentials"}, 401)
        token = f"token-{next(self._numbers)}-of-{self.port}"
        ends = time.time() + self.token_seconds
        self._tokens[token] = ends
        return Reply(
            {
                "grantType": "Bearer",
                "accessToken": token,
                "refreshToken": f"refresh-{token}",
                "accessTokenExpiresIn": int(ends * 1000),
            }
        )

    def _courses(self, category: int) -> Any:
        courses = [
            {self.course_id_name: number, "coursename": self.names[number]}
            for number in self.categories.get(category, [])
        ]
        if self.courses_as_array:
            return courses
        return {f"course{position}": course for position, course in enumerate(courses)}

    def _detail(self, user: str) -> dict[str, Any]:
        known: dict[str, Any] = next(
            (
                row["user"]
                for rows in self._rows.values()
                for row in rows
                if user in (row["user"].get("userId"), row["user"].get("email"))
            ),
            {},
        )
        return {
            "userId": user,
            "userName": known.get("userName"),
            "phone": "010-1234-5678",
            "address": "서울특별시 종로구",
            "juminNumber": "900101-1234567",
            "userPassword": "$2a$10$secret-of-a-user",
            "lastLogin": time.time_ns(),
        }


def _set(row: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        part = "user" if name in row["user"] else "classStatus"
        row[part][name] = value
    status = fields.get("status")
    if status in STATUS_MESSAGES and "statusmsg" not in fields:
        row["classStatus"]["statusmsg"] = STATUS_MESSAGES[status]


def _number(value: Any) -> int:
    return int(value) if str(value).isdigit() else -1
