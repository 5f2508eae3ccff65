"""What the sync asks of a learning management system (LMS)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, Self

from allim.base.errors import AllimError


class FailureGroup(StrEnum):
    """What kind of failure it was; the operators' SQL groups runs by the same."""

    HTTP_409 = "HTTP_409"
    HTTP_5XX = "HTTP_5XX"
    HTTP_4XX = "HTTP_4XX"
    TIMEOUT = "TIMEOUT"
    CONFIGURATION = "CONFIGURATION"
    """Token, login or rights: somebody must change a setting."""
    LOCK_CONFLICT = "LOCK_CONFLICT"
    OTHER = "OTHER"


class LmsError(AllimError):
    """The LMS did not give what was asked.

    The text goes to `run_log.error_message` as it is, where operators' SQL classifies it: it
    begins with ``upstream HTTP 409 from …`` or ``timeout: …`` and holds no other bare
    three-digit number; never a secret, never a body.
    """

    def __init__(self, group: FailureGroup, message: str) -> None:
        super().__init__(message)
        self.group = group


@dataclass(frozen=True, slots=True)
class Course:
    """One course of a category."""

    id: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One enrolment: a user in a course, as its listing tells it.

    `fields` are the business fields, what a change is found by and what is stored: names as
    the LMS has them, values plain JSON, secrets and `update_time` left out. Times are aware,
    None where the LMS has none or nobody can read it. `detail` is the user's detail where
    the listing brings it along; else the sync asks `LmsSession.detail`, once per user.
    """

    user_id: str
    """The LMS's own user id; the e-mail address where it has none."""
    fields: Mapping[str, Any]
    status: str | None = None
    status_msg: str | None = None
    ds_date: datetime | None = None
    gc_date: datetime | None = None
    sjc_date: datetime | None = None
    update_time: datetime | None = None
    user_name: str | None = None
    detail: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Roster:
    """What is told of a listing beside its rows, once they have been read to the end.

    `complete` is False where rows were left out (`limit` was reached, rows nobody could
    identify, a repeat with other content): then nobody is missed by it. `problems` are sentences
    for operators.
    """

    complete: bool = True
    truncated: bool = False
    problems: list[str] = field(default_factory=list)


class LmsSession(Protocol):
    """One run's conversation with an LMS. Every method may raise LmsError."""

    async def courses(self, category_id: int) -> Sequence[Course]:
        """Every course of a category, each once; empty where it has none."""

    def roster(
        self, category_id: int, course: Course, *, limit: int, roster: Roster
    ) -> AsyncIterator[StatusRow]:
        """Its enrolments, streamed, each user once, `limit` at most; fills in `roster`.

        Ends without LmsError only where the listing came to its end (or to `limit`).
        """

    async def detail(self, category_id: int, row: StatusRow) -> Mapping[str, Any]:
        """The user's detail: business fields without secrets."""


class Lms(Protocol):
    """An LMS as the settings describe it. Many runs may be open at once."""

    kind: str

    def session(self) -> LmsConversation:
        """Begin a run's conversation (logs in when first asked something)."""

    async def diagnose(self) -> str | None:
        """Try the connection and the login; what is wrong, or None."""

    async def close(self) -> None:
        """Close every connection."""


class LmsConversation(LmsSession, Protocol):
    """A session, open between `async with`."""

    async def __aenter__(self) -> Self:
        """Begin."""

    async def __aexit__(self, *_exc: object) -> None:
        """End; connections go back."""
