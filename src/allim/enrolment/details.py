"""Users' details: asked once per user in a run, however many courses a user is in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from allim.database.pool import Database
from allim.enrolment.findings import find_changes
from allim.enrolment.lms.protocol import LmsError, LmsSession, StatusRow
from allim.enrolment.model import SourceType
from allim.enrolment.packs import PLAIN, Pack, Taken
from allim.enrolment.records import Record, detail_record, user_key
from allim.enrolment.run_book import Failure

log = logging.getLogger("allim.enrolment")

GIVE_UP_AFTER = 50
"""Failures in a row after which no more details are asked in this run: each may take a minute,
and what the LMS does not answer now it will be asked again by the next run."""


@dataclass(slots=True)
class Details:
    """The details of one run.

    A detail waits here, changed or not, until a course that lists its user is stored; it is
    stored and counted with that.
    """

    database: Database
    session: LmsSession
    category_id: int
    concurrency: int
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    """The first of each kind."""
    _seen: set[str] = field(default_factory=set)
    _underway: dict[str, asyncio.Event] = field(default_factory=dict)
    _waiting: dict[str, Pack | None] = field(default_factory=dict)
    _failed_in_a_row: int = 0

    async def look_at(self, rows: Sequence[StatusRow]) -> list[asyncio.Event]:
        """Ask for the details of users that no course asked for yet, and find their changes.

        Returns what to wait for before the course is stored: users that another course is
        just asking for.
        """
        mine: dict[str, StatusRow] = {}
        others: set[asyncio.Event] = set()
        for row in rows:
            key = user_key(row.user_id)
            if key not in self._seen:
                self._seen.add(key)
                mine[key] = row
            elif event := self._underway.get(key):
                others.add(event)
        if mine:
            done = asyncio.Event()
            self._underway.update(dict.fromkeys(mine, done))
            try:
                await self._find(mine)
            finally:
                for key in mine:
                    del self._underway[key]
                done.set()
        return list(others)

    def take(self, users: Iterable[str]) -> Taken:
        """What waits for a course with these users; give it `back` where it is not stored."""
        if not self._waiting:
            return Taken()
        return Taken({key: self._waiting.pop(key) for key in users if key in self._waiting})

    def give_back(self, taken: Taken) -> None:
        """A course with these could not be stored; another one may have its users too."""
        self._waiting.update(taken.users)

    async def _find(self, mine: dict[str, StatusRow]) -> None:
        records: dict[str, Record] = {}
        rows = iter(mine.items())
        workers = min(self.concurrency, len(mine))
        if all(row.detail is not None for row in mine.values()):
            workers = 1
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._ask(rows, records))
        keys = {record.source_id: key for key, record in records.items()}
        found = await find_changes(self.database, list(records.values()), SourceType.DETAIL)
        self._waiting.update(dict.fromkeys(records))
        if found:
            by_user = {keys[finding.source_id]: finding for finding in found}
            pack = Pack(by_user, packed=len(self._waiting) >= PLAIN)
            self._waiting.update(dict.fromkeys(by_user, pack))

    async def _ask(self, rows: Iterator[tuple[str, StatusRow]], records: dict[str, Record]) -> None:
        for key, row in rows:
            detail = row.detail
            try:
                if detail is None:
                    if self._failed_in_a_row >= GIVE_UP_AFTER:
                        self.failed += 1
                        continue
                    detail = await self.session.detail(self.category_id, row)
                records[key] = detail_record(self.category_id, row, detail)
                self._failed_in_a_row = 0
            except Exception as error:
                # A detail's own boundary: the record keeps its old one, and the run says so.
                if not isinstance(error, LmsError):
                    log.exception("a user's detail could not be read")
                self._failed_in_a_row += 1
                self.failed += 1
                failure = Failure.of(error)
                if all(failure.group != known.group for known in self.failures):
                    self.failures.append(failure)
