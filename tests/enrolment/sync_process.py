"""Syncs in processes of their own, that are killed or stopped in the middle.

    python -m tests.enrolment.sync_process '{"database": …, "mode": "kill everywhere"}'

Prints one line of JSON for each thing that happened. It is the real sync on a real database; only
the moments of death are put around its statements here. Killing goes by fork, since there is a
moment after each statement and starting Python for each would take minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from allim.base.settings import Environment
from allim.database.pool import Connection, Database
from allim.enrolment.model import SyncRequest, SyncResult
from allim.enrolment.settings import EnrolmentSettings
from allim.enrolment.sync import EnrolmentSync
from allim.testing.lms.memory import MemoryLms
from tests.foundations import open_channels

FIRST_CATEGORY = 1000
MOMENTS_AT_MOST = 200
SHORT_LEASE = 3.0

Moment = Callable[[str], Awaitable[None]]


def lms_of(category: int, *, changed: bool) -> MemoryLms:
    """Two courses that share a user; after the change one came, one left and one paid."""
    lms = MemoryLms()
    lms.enrol(category, "447", "kim01", {"status": "GC" if changed else "SJC"})
    lms.enrol(category, "447", "lee02", {"status": "DS"})
    lms.enrol(category, "448", "kim01", {"status": "DS"})
    if changed:
        lms.leave(category, "447", "lee02")
        lms.enrol(category, "448", "park03", {"status": "DS"})
        lms.users["kim01"] = {"user": "kim01", "phone": "1"}
    return lms


def say(**what: Any) -> None:
    """One line for whoever started this."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class WatchedDatabase(Database):
    """A database that tells of each moment between its statements."""

    def __init__(self, url: str, moment: Moment) -> None:
        super().__init__(url, max_size=4)
        self._moment = moment

    @asynccontextmanager
    async def transaction(self, *, pinned: bool = False) -> AsyncIterator[Connection]:
        await self._moment("before begin")
        async with super().transaction(pinned=pinned) as tx:
            yield tx
            await self._moment("before commit")
        await self._moment("after commit")

    async def run_pinned(self, statement: Any, parameters: dict[str, Any]) -> Any:
        rows = await super().run_pinned(statement, parameters)
        await self._moment("after a look")
        return rows

    async def fetch(self, statement: Any, parameters: dict[str, Any] | None = None) -> Any:
        rows = await super().fetch(statement, parameters)
        await self._moment("after a read")
        return rows


def watch_statements(moment: Moment) -> None:
    """Tell of each statement in a transaction; for the rest of this process's life."""
    execute = psycopg.AsyncConnection.execute

    async def watched(self: Any, query: Any, *arguments: Any, **more: Any) -> Any:
        cursor = await execute(self, query, *arguments, **more)
        words = " ".join(str(query).split()[:60])
        target = next((t for t in ("source_record", "alert (", "run_log", "job_lock")
                       if f"INTO {t}" in words or f"UPDATE {t}" in words), "")  # fmt: skip
        await moment(f"after a statement {target}".strip())
        return cursor

    psycopg.AsyncConnection.execute = watched  # type: ignore[method-assign]


async def sync(
    url: str,
    lms: MemoryLms,
    category: int,
    moment: Moment,
    lease: float = 120.0,
) -> SyncResult:
    """One run."""
    environment = Environment({"JOB_LOCK_SECONDS": str(lease), "ENROLMENT_COURSE_CONCURRENCY": "1"})
    async with open_channels(environment) as channels, WatchedDatabase(url, moment) as database:
        settings = environment.read(EnrolmentSettings)
        service = EnrolmentSync(database, lms, channels, settings)
        return await service.run(SyncRequest(category_id=category))


async def nothing(what: str) -> None:
    """A moment at which nothing happens."""


def in_a_child(work: Callable[[], None]) -> int:
    """Do something in a fork of this process; its exit status, or minus the signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:  # the child's end, whatever it was
            say(error=repr(error))
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_everywhere(url: str) -> None:
    """A run is killed at its first moment, another at its second, and so on; each is retried."""
    for nth in range(1, MOMENTS_AT_MOST):
        category = FIRST_CATEGORY + nth

        def first(category: int = category) -> None:
            asyncio.run(sync(url, lms_of(category, changed=False), category, nothing))

        def doomed(category: int = category, nth: int = nth) -> None:
            left = nth

            async def moment(what: str) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    say(killed=what, category=category)
                    os.kill(os.getpid(), signal.SIGKILL)

            watch_statements(moment)
            lms = lms_of(category, changed=True)
            lms.step = moment
            asyncio.run(sync(url, lms, category, moment))

        def retry(category: int = category) -> None:
            # As if the lease had run out; a lock may also be gone with a committed release.
            with psycopg.connect(url) as connection:
                connection.execute("UPDATE job_lock SET lock_expires_at = now() - interval '1 s'")
            lms = lms_of(category, changed=True)
            result = asyncio.run(sync(url, lms, category, nothing))
            say(retried=category, ok=result.ok, error=result.error)

        assert in_a_child(first) == 0
        code = in_a_child(doomed)
        assert in_a_child(retry) == 0
        if code == 0:
            say(survived=category)
            return
        assert code == -signal.SIGKILL, code


async def stop_at(url: str, category: int, at: str) -> None:
    """A run that waits for a line at a moment, and says how it ended."""
    stopped = False

    async def moment(what: str) -> None:
        nonlocal stopped
        if what == at and not stopped:
            stopped = True
            say(at=what)
            # Blocks the whole loop, as a process does that is stopped.
            sys.stdin.readline()

    watch_statements(moment)
    lms = lms_of(category, changed=True)
    lms.step = moment
    result = await sync(url, lms, category, moment, lease=SHORT_LEASE)
    say(ok=result.ok, error=result.error)


def main(database: str, mode: str, category: int = 0, at: str = "") -> None:
    """Do what was asked."""
    if mode == "kill everywhere":
        kill_everywhere(database)
    else:
        asyncio.run(stop_at(database, category, at))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
