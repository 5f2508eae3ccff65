"""Storing what changed in a course: records, alerts and notifications, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NoReturn

from allim.channels.channel import Channel
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.enrolment.course import Reading, shown_course
from allim.enrolment.details import Details
from allim.enrolment.findings import Finding, missing_finding
from allim.enrolment.lease import LeaseLost, Lock
from allim.enrolment.lms.protocol import FailureGroup, LmsError
from allim.enrolment.model import AlertType
from allim.enrolment.packs import Taken
from allim.enrolment.records import course_key
from allim.enrolment.telling import BATCH, LANES, Alert, tell
from allim.hub.coalescer import OnCommit

RECORDS = Statements.load("allim.enrolment", "records.sql")
RUNS = Statements.load("allim.enrolment", "runs.sql")


class Overtaken(Exception):
    """A record was not as it was found, though the lock was held: nothing is stored."""


@dataclass(frozen=True, slots=True)
class _Counts:
    new: int
    changed: int
    missing: int
    alerts: int


class CourseStore:
    """Stores courses of one run, one after the other.

    The transaction ends with the fence check: a holder whose lock is lost commits nothing.
    """

    def __init__(
        self,
        database: Database,
        channels: Mapping[str, Channel],
        lock: Lock,
        details: Details,
        *,
        doubted: Collection[str],
        tell_new: bool,
        on_commit: OnCommit,
    ) -> None:
        self._database = database
        self._channels = channels
        self._lock = lock
        self._details = details
        self._doubted = doubted
        self._tell_new = tell_new
        self._on_commit = on_commit

    async def store(self, reading: Reading) -> None:
        """Store one course.

        Raises LeaseLost, Overtaken and DatabaseUnavailable, and LmsError for a listing that
        nobody would believe; the course is then as before.
        """
        if reading.is_doubtful and course_key(reading.course.id) not in self._doubted:
            await self._doubt(reading)
        taken = self._details.take(reading.users)
        try:
            async with self._database.transaction() as tx:
                counts = await self._write(tx, reading, taken)
        except BaseException:
            self._details.give_back(taken)
            raise
        if counts.alerts:
            self._on_commit(set(LANES))

    async def _doubt(self, reading: Reading) -> NoReturn:
        await self._database.fetch(
            RECORDS["doubt_course"],
            {
                **self._key(reading),
                "run_id": self._lock.run_id,
                "job_name": self._lock.job_name,
                "fence": self._lock.fence,
            },
        )
        what = "lists almost nobody" if reading.listed else "is gone from the list of courses"
        # The numbers do not stand alone, where operators' SQL would take them for an HTTP status.
        raise LmsError(
            FailureGroup.OTHER,
            f"upstream: course {shown_course(reading.course.id)} {what}"
            f" (gone={len(reading.missing)}, known={reading.known});"
            " nobody is reported missing unless the next run is told the same",
        )

    def _key(self, reading: Reading) -> dict[str, Any]:
        return {
            "category_id": self._lock.category_id,
            "course_id": course_key(reading.course.id),
        }

    async def _write(self, tx: Connection, reading: Reading, details: Taken) -> _Counts:
        # Less than the lease, so that it has ended before anybody takes over.
        milliseconds = str(int(self._lock.lease * 1000 * 2 / 3))
        await tx.execute(RUNS["bound_course"], {"milliseconds": milliseconds})
        found = new = alerts = 0
        for batch in _batches(chain(reading.findings, details)):
            await self._upsert(tx, batch)
            alerts += await self._tell(tx, batch)
            found += len(batch)
            new += sum(finding.telling.alert_type is AlertType.NEW for finding in batch)
        missing = 0
        for at in range(0, len(reading.missing), BATCH):
            gone = await self._mark_missing(tx, reading, reading.missing[at : at + BATCH])
            missing += len(gone)
            alerts += await self._tell(tx, gone)
        if course_key(reading.course.id) in self._doubted and reading.known:
            await tx.execute(RECORDS["trust_course"], self._key(reading))
        counts = _Counts(new, found - new + missing, missing, alerts)
        await self._record(tx, reading, len(details.users), counts)
        return counts

    async def _tell(self, tx: Connection, found: Sequence[Finding]) -> int:
        alerts = [
            _alert(finding, self._lock.category_id)
            for finding in found
            if self._tell_new or finding.telling.alert_type is not AlertType.NEW
        ]
        await tell(tx, alerts, self._channels, run_id=self._lock.run_id)
        return len(alerts)

    async def _upsert(self, tx: Connection, found: Sequence[Finding]) -> None:
        rows = [finding.row for finding in found if finding.row is not None]
        cursor = await tx.execute(
            RECORDS["upsert"],
            {
                "category_id": self._lock.category_id,
                "run_id": self._lock.run_id,
                "batch": (b"[" + b",".join(rows) + b"]").decode(),
            },
        )
        if cursor.rowcount != len(found):
            raise Overtaken

    async def _mark_missing(
        self, tx: Connection, reading: Reading, keys: Sequence[str]
    ) -> list[Finding]:
        cursor = await tx.execute(
            RECORDS["mark_missing"],
            {
                **self._key(reading),
                "keys": list(keys),
                "run_id": self._lock.run_id,
            },
        )
        rows = await cursor.fetchall()
        if len(rows) != len(keys):
            raise Overtaken
        return [missing_finding(row) for row in rows]

    async def _record(
        self, tx: Connection, reading: Reading, details: int, counts: _Counts
    ) -> None:
        cursor = await tx.execute(
            RUNS["record_course"],
            {
                "job_name": self._lock.job_name,
                "fence": self._lock.fence,
                "run_id": self._lock.run_id,
                "rows": reading.rows,
                "new": counts.new,
                "changed": counts.changed,
                "missing": counts.missing,
                "alerts": counts.alerts,
                "courses": int(reading.listed),
                "details": details,
                "truncated": int(reading.truncated),
            },
        )
        if await cursor.fetchone() is None:
            raise LeaseLost


def _batches(findings: Iterable[Finding]) -> Iterator[list[Finding]]:
    left = iter(findings)
    while batch := list(islice(left, BATCH)):
        yield batch


def _alert(finding: Finding, category_id: int) -> Alert:
    telling = finding.telling
    return Alert(
        alert_type=telling.alert_type,
        severity=telling.severity,
        source_type=finding.source_type,
        source_id=finding.source_id,
        category_id=category_id,
        revision=finding.revision,
        title=telling.words.title,
        message=telling.words.message,
        course_id=finding.course_id,
        course_name=finding.course_name,
        user_id=finding.user_id,
        user_name=finding.user_name,
        old=telling.old,
        new=telling.new,
    )
