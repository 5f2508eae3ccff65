"""What a sync should find, said once more without a database: the model that it is held to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from allim.enrolment.course import MANY
from allim.enrolment.model import AlertType
from allim.testing.lms.memory import MemoryLms

STATUS, DETAIL = "enrolment_status", "enrolment_user_detail"


@dataclass
class Known:
    """A record as the model knows it."""

    fields: dict[str, Any]
    revision: int = 1
    missing: bool = False

    @property
    def present(self) -> bool:
        """Whether it was there when it was looked for last."""
        return not self.missing


@dataclass
class Reference:
    """One category as it is known, and every alert that was due, by row key.

    `many` may not leave a course at once without being doubted.
    """

    category: int
    many: int = MANY
    statuses: dict[tuple[str, str], Known] = field(default_factory=dict)
    details: dict[str, Known] = field(default_factory=dict)
    due: Counter[str] = field(default_factory=Counter)
    doubted: set[str] = field(default_factory=set)

    def sync(self, lms: MemoryLms, limit: int | None) -> bool:
        """Look at the LMS once; whether such a run succeeds."""
        courses = lms.categories.get(self.category, {})
        if lms.no_courses is not None or (not courses and self._present_courses()):
            return False
        listed: set[str] = set()
        succeeded = True
        for course in courses:
            users, complete, fails = _listing(lms, self.category, course, limit)
            if fails:
                succeeded = False
                continue
            if complete and self._doubts(course, users):
                succeeded = False
                continue
            listed.update(users)
            for user in users:
                enrolment = courses[course][user]
                key = f"{self.category}:{course}:{user}"
                self._see(self.statuses, (course, user), STATUS, key, enrolment.fields)
            if complete:
                self._miss(course, users)
        for course in self._present_courses() - set(courses):
            if self._doubts(course, {}):
                succeeded = False
            else:
                self._miss(course, {})
        for user in listed - lms.no_detail:
            key = f"{self.category}:{user}"
            self._see(self.details, user, DETAIL, key, lms.users[user])
        return succeeded and not listed & lms.no_detail

    def state(self) -> set[tuple[str, int, bool, str]]:
        """Every record: key, revision, whether missing, fields."""
        return {
            (f"{self.category}:{course}:{user}", known.revision, known.missing, _said(known.fields))
            for (course, user), known in self.statuses.items()
        } | {
            (f"{self.category}:{user}", known.revision, known.missing, _said(known.fields))
            for user, known in self.details.items()
        }

    def _see(
        self,
        known: dict[Any, Known],
        at: Any,
        source_type: str,
        key: str,
        fields: Mapping[str, Any],
    ) -> None:
        record = known.get(at)
        if record is None:
            known[at] = Known(dict(fields))
            self._tell(source_type, key, AlertType.NEW, 1)
        elif record.missing or record.fields != fields:
            record.fields, record.missing = dict(fields), False
            record.revision += 1
            self._tell(source_type, key, AlertType.CHANGED, record.revision)

    def _doubts(self, course: str, listed: Mapping[str, None]) -> bool:
        """Whether too many are gone at once; a listing that says so again is believed."""
        known = {u for (of, u), record in self.statuses.items() if of == course and record.present}
        gone = known - set(listed)
        doubtful = len(gone) >= self.many and len(gone) >= len(known) * 0.9
        if doubtful and course not in self.doubted:
            self.doubted.add(course)
            return True
        if known:
            self.doubted.discard(course)
        return False

    def _miss(self, course: str, listed: Mapping[str, None]) -> None:
        for (of, user), record in self.statuses.items():
            if of == course and user not in listed and not record.missing:
                record.missing = True
                record.revision += 1
                key = f"{self.category}:{course}:{user}"
                self._tell(STATUS, key, AlertType.CHANGED, record.revision)

    def _present_courses(self) -> set[str]:
        return {course for (course, _), known in self.statuses.items() if not known.missing}

    def _tell(self, source_type: str, key: str, alert_type: AlertType, revision: int) -> None:
        self.due[f"{source_type}:{key}:{alert_type}:r{revision}"] += 1


def _listing(
    lms: MemoryLms, category: int, course: str, limit: int | None
) -> tuple[dict[str, None], bool, bool]:
    """Who is listed, whether that is everybody, whether the listing broke off instead."""
    rows = list(lms.categories[category][course])
    rows = rows * 2 if course in lms.repeats else rows
    users: dict[str, None] = {}
    for told, user in enumerate(rows):
        if lms.breaks.get(course) == told:
            return {}, False, True
        if told == limit:
            return users, False, False
        users[user] = None
    return users, course not in lms.incomplete, course in lms.breaks


def _said(fields: Mapping[str, Any]) -> str:
    return str(sorted(fields.items()))
