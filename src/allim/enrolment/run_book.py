"""The book of runs: begun with the lock, ended with its release, and nothing in between."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from allim.channels.channel import Channel
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.enrolment import severity, wording
from allim.enrolment.lease import Lock
from allim.enrolment.lms.protocol import FailureGroup, LmsError
from allim.enrolment.model import (
    SOURCE,
    AlertType,
    LockActive,
    RunStatus,
    Severity,
    SourceType,
    Summary,
    SyncRequest,
    SyncResult,
)
from allim.enrolment.runs import run_statement
from allim.enrolment.settings import EnrolmentSettings
from allim.enrolment.telling import LANES, Alert, tell
from allim.enrolment.views import RunView
from allim.hub.coalescer import OnCommit
from allim.hub.settling import storable

SQL = Statements.load("allim.enrolment", "runs.sql")
RECORDS = Statements.load("allim.enrolment", "records.sql")
log = logging.getLogger("allim.enrolment")

ERROR_LIMIT = 500
LEASE_EXPIRED = "lease expired (the process died or stood still, or its lock was taken over)"


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that went wrong in a run, as run_log.error_message has it."""

    group: FailureGroup
    message: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """What an error is to operators; any but the LMS's is a bug of ours, or the database."""
        if isinstance(error, LmsError):
            text = " ".join((storable(str(error), ERROR_LIMIT) or "").split())
            return cls(error.group, text)
        return cls(FailureGroup.OTHER, f"internal error: {type(error).__name__}")


@dataclass(slots=True)
class Ending:
    """What is known at a run's end beside what its courses stored."""

    categories: int = 0
    failed_courses: int = 0
    failed_details: int = 0
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What was left out of listings; it fails no run."""

    def warning(self) -> str | None:
        """What run_log.error_message says of a run that succeeded; mostly nothing."""
        if not self.warnings:
            return None
        return storable(f"incomplete: {'; '.join(self.warnings)}", ERROR_LIMIT)

    def error(self) -> str | None:
        """The gravest failure, the first of its kind; None where there is none."""
        if not self.failures:
            return None
        gravest = min(self.failures, key=lambda f: severity.rank(severity.of_failure(f.group)))
        return gravest.message


class RunBook:
    """Begins and ends runs."""

    def __init__(
        self,
        database: Database,
        channels: Mapping[str, Channel],
        settings: EnrolmentSettings,
        on_commit: OnCommit,
    ) -> None:
        self._database = database
        self._channels = channels
        self._settings = settings
        self._on_commit = on_commit

    async def begin(self, request: SyncRequest) -> Lock:
        """Take the lock and open a run. Raises LockActive, once that is on record itself."""
        job_name = f"{SOURCE}:{request.category_id}"
        lock = None
        if not await self._holder(job_name):
            lock = await self._take(request, job_name)
        if lock is None:
            raise await self._refused(request, job_name)
        return lock

    async def end(self, lock: Lock, ending: Ending) -> SyncResult:
        """Close the run and release the lock, in one transaction; how it ended.

        A run whose lock is lost ends as FAILED, whatever it did last; one that a new holder
        has closed already is left as that left it.
        """
        error = ending.error()
        told = False
        async with self._database.transaction() as tx:
            held = await _one(tx, "release_lock", job_name=lock.job_name, fence=lock.fence)
            failures = list(ending.failures)
            if error is None and held != (True,):
                error = LEASE_EXPIRED
                failures.append(Failure(FailureGroup.OTHER, error))
            if await _one(tx, "lock_run", run_id=lock.run_id) is not None:
                told = await self._close(tx, lock, ending, error, failures)
            found = await _one(tx, "one_run", id=lock.run_id)
        if told:
            self._on_commit(set(LANES))
        if found is None:
            return SyncResult(lock.run_id, False, Summary(), LEASE_EXPIRED)
        run = RunView.model_validate(found[0])
        if run.status is RunStatus.SUCCESS:
            return SyncResult(run.id, True, run.summary, warning=run.error_message)
        return SyncResult(run.id, False, run.summary, run.error_message)

    async def _close(
        self,
        tx: Connection,
        lock: Lock,
        ending: Ending,
        error: str | None,
        failures: Sequence[Failure],
    ) -> bool:
        if error is None:
            alerts = await self._tell_baseline(tx, lock)
            await tx.execute(
                SQL["resolve_failures"],
                {"category_id": lock.category_id, "by": f"run#{lock.run_id}"},
            )
        else:
            alerts = await self._tell_failures(tx, lock.category_id, lock.run_id, failures)
        await tx.execute(
            SQL["close_run"],
            {
                "run_id": lock.run_id,
                "status": RunStatus.SUCCESS if error is None else RunStatus.FAILED,
                "error": ending.warning() if error is None else error,
                "categories": ending.categories,
                "failed_courses": ending.failed_courses,
                "failed_details": ending.failed_details,
                "alerts": alerts,
            },
        )
        return alerts > 0

    async def is_baseline(self, category_id: int) -> bool:
        """Whether new records are told in sum, at the end of the first run that succeeds."""
        if self._settings.enrolment_baseline != "summary":
            return False
        rows = await self._database.fetch(SQL["ever_succeeded"], {"category_id": category_id})
        return not rows[0][0]

    async def _holder(self, job_name: str) -> tuple[Any, ...] | None:
        rows = await self._database.fetch(SQL["lock_held"], {"job_name": job_name})
        return rows[0] if rows else None

    async def _take(self, request: SyncRequest, job_name: str) -> Lock | None:
        """A run of its own with the lock; None where somebody was quicker."""
        lease = self._settings.job_lock_seconds
        buried: list[int] = []
        try:
            async with self._database.transaction() as tx:
                await tx.execute(SQL["bound_take"])
                run_id = await _open_run(tx, request)
                fence = await _take_lock(tx, job_name, run_id, lease)
                cursor = await tx.execute(
                    SQL["bury_runs"],
                    {
                        "category_id": request.category_id,
                        "run_id": run_id,
                        "error": LEASE_EXPIRED,
                    },
                )
                buried = [row[0] for row in await cursor.fetchall()]
                died = [Failure(FailureGroup.OTHER, LEASE_EXPIRED)]
                for dead in sorted(buried):
                    await self._tell_failures(tx, request.category_id, dead, died)
        except _Taken:
            return None
        for dead in buried:
            log.warning("run %d of category %d had died", dead, request.category_id)
        if buried:
            self._on_commit(set(LANES))
        return Lock(job_name, fence, run_id, request.category_id, lease)

    async def _refused(self, request: SyncRequest, job_name: str) -> LockActive:
        holder = await self._holder(job_name)
        # Nothing here that the operators' SQL could take for an HTTP status.
        by = f"held by run#{holder[0]}" if holder else "held a moment ago"
        message = f"job_lock active ({job_name}, {by})"
        failure = Failure(FailureGroup.LOCK_CONFLICT, message)
        async with self._database.transaction() as tx:
            run_id = await _open_run(tx, request)
            alerts = await self._tell_failures(tx, request.category_id, run_id, [failure])
            await tx.execute(
                SQL["close_run"],
                {
                    "run_id": run_id,
                    "status": RunStatus.FAILED,
                    "error": message,
                    "categories": 0,
                    "failed_courses": 0,
                    "failed_details": 0,
                    "alerts": alerts,
                },
            )
        if alerts:
            self._on_commit(set(LANES))
        return LockActive(run_id, message)

    async def _tell_failures(
        self, tx: Connection, category_id: int, run_id: int, failures: Sequence[Failure]
    ) -> int:
        """One alert for each kind of failure, or one more occurrence of it; how many are new."""
        first = {failure.group: failure for failure in reversed(failures)}
        alerts = []
        for group, failure in sorted(first.items()):
            await tx.execute(
                SQL["queue_failures"], {"name": f"{SOURCE}:failed:{category_id}:{group}"}
            )
            counted = await _one(
                tx,
                "count_failure",
                category_id=category_id,
                error_group=group,
                cooldown=self._settings.enrolment_failed_cooldown_seconds,
            )
            if counted is None:
                alerts.append(_failure_alert(category_id, run_id, failure))
        await tell(tx, alerts, self._channels, run_id=run_id)
        return len(alerts)

    async def _tell_baseline(self, tx: Connection, lock: Lock) -> int:
        if self._settings.enrolment_baseline != "summary":
            return 0
        cursor = await tx.execute(SQL["ever_succeeded"], {"category_id": lock.category_id})
        if (await cursor.fetchall())[0][0]:
            return 0
        cursor = await tx.execute(RECORDS["count_known"], {"category_id": lock.category_id})
        enrolments, users = (await cursor.fetchall())[0]
        if not enrolments:
            return 0
        words = wording.of_baseline(lock.category_id, enrolments=enrolments, users=users)
        alert = Alert(
            alert_type=AlertType.NEW,
            severity=Severity.MEDIUM,
            source_type=SourceType.CATEGORY,
            source_id=str(lock.category_id),
            category_id=lock.category_id,
            revision=lock.run_id,
            title=words.title,
            message=words.message,
        )
        await tell(tx, [alert], self._channels, run_id=lock.run_id)
        return 1


class _Taken(Exception):
    """Somebody else has the lock; leaves the transaction without a trace."""


async def _take_lock(tx: Connection, job_name: str, run_id: int, lease: float) -> int:
    try:
        taken = await _one(
            tx,
            "take_lock",
            job_name=job_name,
            locked_by=f"run#{run_id} {_worker()}",
            lease=lease,
            run_id=run_id,
        )
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        # Its holder is alive, in the middle of a commit.
        raise _Taken from None
    if taken is None:
        raise _Taken
    return int(taken[0])


def _failure_alert(category_id: int, run_id: int, failure: Failure) -> Alert:
    words = wording.of_failure(category_id, failure.group, failure.message)
    return Alert(
        alert_type=AlertType.FAILED,
        severity=severity.of_failure(failure.group),
        source_type=SourceType.RUN,
        source_id=f"{category_id}:{failure.group}",
        category_id=category_id,
        revision=run_id,
        title=words.title,
        message=words.message,
        error_group=failure.group,
    )


async def _open_run(tx: Connection, request: SyncRequest) -> int:
    opened = await _one(
        tx,
        "open_run",
        category_id=request.category_id,
        trigger_type=request.trigger_type,
        worker=_worker(),
    )
    assert opened is not None
    return int(opened[0])


async def _one(tx: Connection, name: str, **parameters: Any) -> tuple[Any, ...] | None:
    return await (await tx.execute(run_statement(name), parameters)).fetchone()


def _worker() -> str:
    return f"{platform.node()}/{os.getpid()}"
