"""Reading one course: its roster in batches, and what is new or changed in each."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any

from allim.database.pool import Database
from allim.enrolment.details import Details
from allim.enrolment.findings import find_changes, find_present
from allim.enrolment.lms.protocol import Course, LmsSession, Roster, StatusRow
from allim.enrolment.model import MAX_USERS, SourceType
from allim.enrolment.packs import Findings
from allim.enrolment.records import course_key, status_key, status_record, user_key

BATCH = 500

MANY = 20
"""Fewer than this may leave a course at once without anybody doubting it."""
MOST = 0.9
"""What part of those who were known must be gone to be doubted."""


@dataclass(slots=True)
class Reading:
    """What a course's listing brought; nothing of it is stored yet."""

    course: Course
    rows: int = 0
    truncated: bool = False
    findings: Findings = field(default_factory=Findings)
    missing: list[str] = field(default_factory=list)
    """Keys of records that are gone."""
    known: int = 0
    """How many were known of it and not missing; 0 where the listing proves nothing about that."""
    problems: list[str] = field(default_factory=list)
    """What was left out of the listing, in sentences for operators."""
    users: dict[str, None] = field(default_factory=dict)
    """Who was listed, in that order."""
    listed: bool = True
    """False for a course that is itself gone from the list of courses."""

    @property
    def is_doubtful(self) -> bool:
        """Whether so many are gone at once that it is more likely the LMS's mistake.

        A right that was taken away, or a course that was moved for an hour, looks like this.
        """
        gone = len(self.missing)
        return gone >= MANY and gone >= self.known * MOST


class CourseReader:
    """Reads courses of one run."""

    def __init__(
        self,
        database: Database,
        session: LmsSession,
        details: Details,
        *,
        category_id: int,
        limit: int | None,
    ) -> None:
        self._database = database
        self._session = session
        self._details = details
        self._category_id = category_id
        self._limit = limit or MAX_USERS

    async def read(self, course: Course) -> Reading:
        """Read a course to its end. Raises LmsError, and then nothing of it counts."""
        reading = Reading(course)
        roster = Roster()
        others: list[asyncio.Event] = []
        batch: list[StatusRow] = []
        rows = self._session.roster(self._category_id, course, limit=self._limit, roster=roster)
        async with _closing(rows):
            async for row in rows:
                if not self._is_new(row, reading, roster):
                    continue
                batch.append(row)
                if len(batch) == BATCH:
                    others += await self._take(batch, reading)
                    batch = []
        others += await self._take(batch, reading)
        reading.truncated = roster.truncated
        reading.problems = roster.problems
        if roster.complete and not roster.truncated:
            prefix = status_key(self._category_id, course.id, "")
            await self._miss(reading, seen={prefix + user for user in reading.users})
        for event in others:
            await event.wait()
        return reading

    async def read_gone(self, course_id: str) -> Reading:
        """A course that is not in the complete list of courses any more."""
        reading = Reading(Course(course_id), listed=False)
        await self._miss(reading, seen=set())
        return reading

    def _is_new(self, row: StatusRow, reading: Reading, roster: Roster) -> bool:
        """Whether a row is one of a user not met before in this course.

        The clients see to both; a batch that names a key twice could not be stored.
        """
        if not row.user_id:
            roster.complete = False
            return False
        user = user_key(row.user_id)
        if user in reading.users:
            return False
        reading.users[user] = None
        return True

    async def _take(self, batch: list[StatusRow], reading: Reading) -> list[asyncio.Event]:
        if not batch:
            return []
        reading.rows += len(batch)
        records = [status_record(self._category_id, reading.course, row) for row in batch]
        reading.findings.add(await find_changes(self._database, records, SourceType.STATUS))
        return await self._details.look_at(batch)

    async def _miss(self, reading: Reading, *, seen: set[str]) -> None:
        known = await find_present(
            self._database,
            category_id=self._category_id,
            course_id=course_key(reading.course.id),
        )
        reading.known = len(known)
        reading.missing = [key for key in known if key not in seen]


def shown_course(course_id: str) -> str:
    """A course's id in a run's error_message: in one word, so that it is no HTTP status there."""
    return f"#{''.join(course_id.split())[:60]}"


def _closing(rows: Any) -> AbstractAsyncContextManager[Any]:
    # A generator holds a connection; it must go back at once where reading breaks off.
    return aclosing(rows) if hasattr(rows, "aclose") else nullcontext()
