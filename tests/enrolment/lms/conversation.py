"""Talking to an LMS as the sync does, with a clock that only sleeping turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from allim.base.settings import Environment
from allim.enrolment.lms.making import make_lms
from allim.enrolment.lms.patience import Manners
from allim.enrolment.lms.protocol import Course, Lms, LmsError, LmsSession, Roster, StatusRow
from allim.testing.lms.server import FakeLms

CATEGORY = 303
SOON = 0.2
"""Seconds until a call that hangs is given up; nothing waits for this but such calls."""
PATIENCE_SECONDS = 60.0


@dataclass
class Time:
    """Seconds that pass only in `sleep`."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def manners(time: Time, **changed: Any) -> Manners:
    usual: dict[str, Any] = {"timeout": PATIENCE_SECONDS, "jitter": lambda: 1.0}
    return Manners(clock=time.clock, sleep=time.sleep, **(usual | changed))


def client_of(fake: FakeLms) -> Lms:
    """A client made of settings, as a program makes it."""
    return make_lms(Environment(fake.environment()))


@dataclass
class Read:
    """A listing that was read to its end."""

    rows: Sequence[StatusRow]
    roster: Roster

    @property
    def users(self) -> list[str]:
        return [row.user_id for row in self.rows]


async def read(session: LmsSession, course: int | str, *, limit: int = 1_000_000) -> Read:
    roster = Roster()
    listed = session.roster(CATEGORY, Course(str(course)), limit=limit, roster=roster)
    return Read([row async for row in listed], roster)


async def failure(session: LmsSession, course: int | str) -> LmsError:
    """The error that a listing ends with."""
    try:
        await read(session, course)
    except LmsError as error:
        return error
    raise AssertionError("the listing was read without an error")
