"""A fake Moodle web service: errors in 200 bodies, hidden users, subcategories, completion."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiohttp import web

from allim.testing.lms.faults import Fault
from allim.testing.lms.server import Call, FakeLms, Reply

SERVER = "/webservice/rest/server.php"
CATEGORIES = "core_course_get_categories"
COURSES = "core_course_get_courses_by_field"
ROSTER = "core_enrol_get_enrolled_users"
COMPLETION = "core_completion_get_course_completion_status"

_NESTED = re.compile(r"(\w+)\[(\d+)\]\[(\w+)\]")


@dataclass(slots=True)
class Enrolment:
    """One user in one course; `user` is as Moodle's listing tells it."""

    user: dict[str, Any]
    active: bool = True
    hidden: bool = False
    """Moodle looks at it and leaves it out, after it has counted the page."""
    completed: bool | None = None
    """None: completion of this user is not tracked."""


@dataclass(slots=True)
class MoodleCourse:
    """One course; users are listed by their ids."""

    id: int
    category: int
    name: str
    criteria: bool = False
    """Whether it has criteria of completion."""
    enrolments: dict[int, Enrolment] = field(default_factory=dict)


class FakeMoodle(FakeLms):
    """The server. Calls are named by their function: ``lms.fail(ROSTER, Fault.status(500))``."""

    kind: ClassVar[str] = "moodle"

    def __init__(self, *, token: str = "0123456789abcdef") -> None:  # noqa: S107
        super().__init__()
        self.token: str = token
        self.switched_off: set[str] = set()
        """Functions that the token's service does not have."""
        self.categories: dict[int, int] = {}
        """Category to the one above it; 0 is the top."""
        self.courses: dict[int, MoodleCourse] = {}

    def environment(self) -> dict[str, str]:
        """The settings that lead to this server."""
        return {"LMS_KIND": self.kind, "LMS_BASE_URL": self.url, "LMS_TOKEN": self.token}

    def forget_tokens(self) -> None:
        """Refuse the token from now on; set `token` to allow another."""
        self.token = ""

    def add_category(self, category: int, *, below: int = 0) -> None:
        """A category, below another one if you like."""
        self.categories[category] = below

    def add_course(
        self, category: int, course: int, name: str | None = None, *, criteria: bool = False
    ) -> None:
        """A course of a category; `criteria`: it has criteria of completion."""
        self.categories.setdefault(category, 0)
        self.courses[course] = MoodleCourse(course, category, name or f"강좌 {course}", criteria)

    def enrol(
        self,
        course: int,
        user: int,
        *,
        active: bool = True,
        hidden: bool = False,
        completed: bool | None = None,
        **fields: Any,
    ) -> None:
        """Enrol a user; `fields` are those of the listing."""
        told: dict[str, Any] = {
            "id": user,
            "username": f"user{user}",
            "fullname": f"수강생 {user}",
            "email": f"user{user}@example.com",
            "department": "개발팀",
            "institution": "한빛상사",
            "lastaccess": len(self.calls),
            "roles": [{"roleid": 5, "name": "학생", "shortname": "student", "sortorder": 0}],
            **fields,
        }
        enrolments = self.courses[course].enrolments
        enrolments[user] = Enrolment(told, active, hidden, completed)
        self.courses[course].enrolments = dict(sorted(enrolments.items()))

    def enrolment(self, course: int, user: int) -> Enrolment:
        """One enrolment, to be changed in place."""
        return self.courses[course].enrolments[user]

    def drop(self, course: int, user: int) -> None:
        """End an enrolment: it is no longer listed."""
        del self.courses[course].enrolments[user]

    def refuse(self, function: str, errorcode: str, **how: Any) -> None:
        """Answer the next calls with this Moodle exception; `how` as in `fail`."""
        self.fail(function, Fault.answer(json.dumps(_exception(errorcode))), **how)

    async def read(self, request: web.BaseRequest) -> tuple[str, dict[str, Any]]:
        """The function, and the form's fields; ``options[n][name|value]`` by their names."""
        asked: dict[str, Any] = {}
        pairs: dict[tuple[str, str], dict[str, str]] = {}
        for name, value in (await request.post()).items():
            if nested := _NESTED.fullmatch(name):
                pairs.setdefault((nested[1], nested[2]), {})[nested[3]] = str(value)
            else:
                asked[name] = str(value)
        for pair in pairs.values():
            asked[pair.get("name") or pair.get("key") or ""] = pair.get("value")
        function = str(asked.get("wsfunction")) if request.path == SERVER else request.path
        return function, asked

    def reply(self, call: Call) -> Reply:
        """What Moodle answers: 200, whatever is wrong."""
        asked = call.asked
        if not self.token or asked.get("wstoken") != self.token:
            return Reply(_exception("invalidtoken"))
        if call.name in self.switched_off:
            return Reply(_exception("accessexception"))
        match call.name:
            case _ if call.name == CATEGORIES:
                return Reply([{"id": number} for number in self._categories(asked)])
            case _ if call.name == COURSES:
                return Reply(
                    {
                        "courses": [
                            {"id": course.id, "fullname": course.name, "shortname": f"c{course.id}"}
                            for course in self.courses.values()
                            if str(course.category) == asked.get("value")
                        ],
                        "warnings": [],
                    }
                )
        course = self.courses.get(int(asked.get("courseid", 0)))
        if course is None:
            return Reply(_exception("invalidrecordunknown"))
        if call.name == ROSTER:
            return self._listing(course, asked)
        if call.name == COMPLETION:
            return self._completion(course, int(asked.get("userid", 0)))
        return Reply(_exception("invalidparameter"))

    def _categories(self, asked: Any) -> list[int]:
        if "id" in asked:
            found = [int(asked["id"])] if int(asked["id"]) in self.categories else []
        else:
            found = [n for n, above in self.categories.items() if str(above) == asked["parent"]]
        if asked.get("addsubcategories") == "1":
            for number in found:
                found += [n for n, above in self.categories.items() if above == number]
        return found

    def _listing(self, course: MoodleCourse, asked: Any) -> Reply:
        fields = asked.get("userfields", "").split(",")
        if asked.get("sortby") != "id" or "fullname" not in fields:
            return Reply(_exception("invalidresponse"))
        listed = [e for e in course.enrolments.values() if e.active or "onlyactive" not in asked]
        begin, number = int(asked.get("limitfrom", 0)), int(asked.get("limitnumber", 0))
        page = listed[begin : begin + number] if number else listed[begin:]
        return Reply(
            [
                {name: value for name, value in e.user.items() if name in fields}
                for e in page
                if not e.hidden
            ]
        )

    def _completion(self, course: MoodleCourse, user: int) -> Reply:
        enrolment = course.enrolments.get(user)
        if enrolment is None:
            return Reply(_exception("usernotenroled"))
        if not course.criteria:
            return Reply(_exception("nocriteriaset"))
        if enrolment.completed is None:
            return Reply(_exception("usernotenroled"))
        status = {"completed": enrolment.completed, "aggregation": 1, "completions": []}
        return Reply({"completionstatus": status, "warnings": []})


def _exception(errorcode: str) -> dict[str, Any]:
    return {
        "exception": "moodle_exception",
        "errorcode": errorcode,
        "message": f"{errorcode}: 오류가 발생했습니다",
    }
