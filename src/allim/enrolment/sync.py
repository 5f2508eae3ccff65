"""The enrolment sync: one run over one category.

Courses are read from the LMS a few at a time and stored one after the other, each in a
transaction of its own; nothing is locked while the LMS is waited for. What was read of a course
is kept only where it changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import DatabaseUnavailable
from allim.base.tasks import cancel_and_wait
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.enrolment.course import CourseReader, Reading, shown_course
from allim.enrolment.details import Details
from allim.enrolment.lease import Lease, LeaseLost, Lock
from allim.enrolment.lms.protocol import Course, FailureGroup, Lms, LmsError, LmsSession
from allim.enrolment.model import OnProgress, Progress, SyncRequest, SyncResult
from allim.enrolment.records import course_key
from allim.enrolment.run_book import LEASE_EXPIRED, Ending, Failure, RunBook
from allim.enrolment.settings import EnrolmentSettings
from allim.enrolment.storing import CourseStore
from allim.hub.coalescer import OnCommit

SQL = Statements.load("allim.enrolment", "records.sql")
log = logging.getLogger("allim.enrolment")

END_SECONDS = 60.0
"""How long a database that is gone is waited for at a run's end. After that the run is closed by
whoever takes its lock over."""
END_AGAIN_SECONDS = 1.0

STOPPED = "stopped: this process was asked to end before the run was over"


class EnrolmentSync:
    """Looks at an LMS and tells what changed since the run before."""

    def __init__(
        self,
        database: Database,
        lms: Lms,
        channels: Mapping[str, Channel],
        settings: EnrolmentSettings,
        *,
        on_commit: OnCommit = lambda lanes: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._database = database
        self._lms = lms
        self._channels = channels
        self._settings = settings
        self._on_commit = on_commit
        self._clock = clock
        self._book = RunBook(database, channels, settings, on_commit)

    async def run(
        self, request: SyncRequest, *, on_progress: OnProgress | None = None
    ) -> SyncResult:
        """Run once; a run that failed is a result too (`ok` False), with true counts.

        Raises LockActive when another run of the category is under way (a FAILED run and a low
        alert tell of it), and DatabaseUnavailable when no run could even be begun.
        """
        lock = await self._begin(request)
        run = _Run(lock, request, Ending(), on_progress)
        work = asyncio.create_task(self._look(run))
        loop = asyncio.get_running_loop()
        lease = Lease(
            self._database,
            lock,
            on_lost=lambda: _cancel_from_outside(loop, work),
            clock=self._clock,
        )
        lease.start()
        try:
            try:
                await asyncio.wait({work})
            except asyncio.CancelledError:
                await cancel_and_wait(work)
                run.ending.failures.append(Failure(FailureGroup.OTHER, STOPPED))
                await asyncio.shield(self._end(run))
                raise
            run.note_end(work, lost=lease.lost)
            return await asyncio.shield(self._end(run))
        finally:
            await asyncio.to_thread(lease.stop)

    async def _begin(self, request: SyncRequest) -> Lock:
        """Take the lock. One that was taken just as we were asked to end is given back."""
        beginning = asyncio.create_task(self._book.begin(request))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            await asyncio.wait({beginning})
            if not beginning.cancelled() and beginning.exception() is None:
                stopped = Ending(failures=[Failure(FailureGroup.OTHER, STOPPED)])
                await asyncio.shield(self._book.end(beginning.result(), stopped))
            raise

    async def _look(self, run: _Run) -> None:
        async with self._lms.session() as session:
            courses = await session.courses(run.lock.category_id)
            known = await self._known_courses(run.lock.category_id)
            if not courses and known:
                # Not one course, of all that were there: more likely the LMS's mistake than
                # everybody's leaving.
                raise LmsError(
                    FailureGroup.OTHER,
                    f"upstream: no courses in category #{run.lock.category_id}, though it had some",
                )
            run.ending.categories = 1
            await self._read_courses(run, session, courses, known)

    async def _read_courses(
        self, run: _Run, session: LmsSession, courses: Sequence[Course], known: Sequence[str]
    ) -> None:
        details = Details(
            self._database,
            session,
            run.lock.category_id,
            self._settings.enrolment_detail_concurrency,
        )
        reader = CourseReader(
            self._database,
            session,
            details,
            category_id=run.lock.category_id,
            limit=run.request.max_users_per_course,
        )
        store = CourseStore(
            self._database,
            self._channels,
            run.lock,
            details,
            doubted=await self._doubted_courses(run.lock.category_id),
            tell_new=not await self._book.is_baseline(run.lock.category_id),
            on_commit=self._on_commit,
        )
        by_key = {course_key(course.id): course for course in courses}
        gone = [key for key in known if key not in by_key]
        run.courses = len(by_key) + len(gone)
        run.tell()
        todo: Iterator[Course | str] = iter([*by_key.values(), *gone])
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.enrolment_course_concurrency, run.courses)):
                    group.create_task(_work_through(run, todo, reader, store))
        except ExceptionGroup as errors:
            # What ends a run ends it for every course; the first of them says why.
            raise errors.exceptions[0] from None
        finally:
            run.ending.failed_details = details.failed
            run.ending.failures += details.failures

    async def _known_courses(self, category_id: int) -> Sequence[str]:
        rows = await self._database.run_pinned(SQL["present_courses"], {"category_id": category_id})
        return [row[0] for row in rows]

    async def _doubted_courses(self, category_id: int) -> Collection[str]:
        rows = await self._database.fetch(SQL["doubted_courses"], {"category_id": category_id})
        return {row[0] for row in rows}

    async def _end(self, run: _Run) -> SyncResult:
        deadline = self._clock() + END_SECONDS
        while True:
            try:
                result = await self._book.end(run.lock, run.ending)
            except DatabaseUnavailable:
                if self._clock() > deadline:
                    raise
                await asyncio.sleep(END_AGAIN_SECONDS)
            else:
                log.log(
                    logging.INFO if result.ok else logging.WARNING,
                    "run %d of category %d: %s",
                    result.run_id,
                    run.lock.category_id,
                    result.error or result.warning or result.summary,
                )
                return result


@dataclass(slots=True)
class _Run:
    """One run under way."""

    lock: Lock
    request: SyncRequest
    ending: Ending
    on_progress: OnProgress | None
    courses: int = 0
    done: int = 0
    rows: int = 0
    storing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def tell(self, course: Course | None = None) -> None:
        """Tell whoever watches how far it is."""
        if self.on_progress is None:
            return
        name = (course.name or course.id) if course else None
        try:
            self.on_progress(Progress(self.lock.run_id, self.courses, self.done, self.rows, name))
        except Exception:
            # Somebody else's code: a run must not fail for what was to show its progress.
            log.exception("the progress of a run could not be shown")
            self.on_progress = None

    def note_problems(self, reading: Reading) -> None:
        """Note what was left out of a listing."""
        for problem in reading.problems:
            warning = f"course {shown_course(reading.course.id)}: {problem}"
            log.warning("run %d: %s", self.lock.run_id, warning)
            self.ending.warnings.append(warning)

    def note_end(self, work: asyncio.Task[None], *, lost: bool) -> None:
        """Note what ended the work, where that was an error."""
        error = None if work.cancelled() else work.exception()
        if lost or isinstance(error, LeaseLost):
            self.ending.failures.insert(0, Failure(FailureGroup.OTHER, LEASE_EXPIRED))
        elif work.cancelled():
            self.ending.failures.append(Failure(FailureGroup.OTHER, STOPPED))
        elif isinstance(error, Exception):
            if not isinstance(error, LmsError):
                log.error("a run ended early", exc_info=error)
            self.ending.failures.append(Failure.of(error))
        elif error is not None:
            raise error


def _cancel_from_outside(loop: asyncio.AbstractEventLoop, work: asyncio.Task[None]) -> None:
    loop.call_soon_threadsafe(work.cancel)


async def _work_through(
    run: _Run, todo: Iterator[Course | str], reader: CourseReader, store: CourseStore
) -> None:
    for each in todo:
        course = Course(each) if isinstance(each, str) else each
        try:
            if isinstance(each, str):
                reading = await reader.read_gone(each)
            else:
                reading = await reader.read(each)
            run.note_problems(reading)
            async with run.storing:
                await store.store(reading)
            run.rows += reading.rows
        except (LeaseLost, DatabaseUnavailable):
            raise
        except Exception as error:
            # A course's own boundary: it is as it was before, and the others go on.
            if not isinstance(error, LmsError):
                log.exception("course %s could not be stored", course.id)
            run.ending.failed_courses += 1
            run.ending.failures.append(Failure.of(error))
        run.done += 1
        run.tell(course)
