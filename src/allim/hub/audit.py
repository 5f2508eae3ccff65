"""The audit log: what people did, with who and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from psycopg.types.json import Jsonb

from allim.base.errors import RequestError
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub import cursors

SQL = Statements.load("allim.hub", "audit.sql")
_CURSOR = b"a"

Answer = TypeVar("Answer")


class AuditOutcome(StrEnum):
    """How an action ended. One that stays BEGUN met the end of its process: look at its subject."""

    BEGUN = "begun"
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """What somebody does: `action` is a stable word (``replay.create``), `subject` what it is
    done to (``replay 7``). `detail` holds neither secrets nor bodies of messages."""

    actor: str
    action: str
    subject: str
    tenant: int | None = None
    detail: Mapping[str, Any] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """As the statements take it."""
        return {
            "actor": self.actor,
            "action": self.action,
            "subject": self.subject,
            "tenant_id": self.tenant,
            "detail": Jsonb(dict(self.detail or {})),
        }


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One entry as it is stored."""

    id: int
    actor: str
    action: str
    subject: str
    tenant_id: int | None
    detail: Mapping[str, Any]
    outcome: AuditOutcome
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries: of one actor, of actions that begin so, of one subject."""

    actor: str | None = None
    action: str | None = None
    subject: str | None = None


class AuditLog:
    """Reads the log, and writes what has no transaction of its own to be written in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def around(self, entry: Entry, run: Callable[[], Awaitable[Answer]]) -> Answer:
        """Run an action that commits by itself, on record before it begins.

        The entry ends as DONE, or as REFUSED with the error's code; whatever `run` raises is
        raised on.
        """
        identity = await self.begin(entry)
        try:
            answer = await run()
        except RequestError as error:
            await self.end(identity, refused=error.code)
            raise
        await self.end(identity)
        return answer

    async def begin(self, entry: Entry) -> int:
        """Write that something begins; the number of the entry."""
        [(identity,)] = await self._database.fetch(SQL["begin"], entry.parameters)
        return int(identity)

    async def end(self, identity: int, *, refused: str | None = None) -> None:
        """Write that it is done, or the code with which it was refused."""
        outcome = AuditOutcome.REFUSED if refused else AuditOutcome.DONE
        detail = {"code": refused} if refused else {}
        await self._database.fetch(
            SQL["end"], {"id": identity, "outcome": outcome.value, "detail": Jsonb(detail)}
        )

    async def refused(self, entry: Entry) -> int:
        """Write what was refused at once; the number of the entry."""
        [(identity,)] = await self._database.fetch(SQL["refused"], entry.parameters)
        return int(identity)

    async def counted(self, identity: int, tries: int) -> None:
        """Write how many tries a refused entry stands for by now."""
        await self._database.fetch(SQL["counted"], {"id": identity, "tries": tries})

    async def about(self, subjects: Sequence[str], *, limit: int = 200) -> list[AuditRow]:
        """What was done to any of these, oldest first."""
        rows = await self._database.fetch(
            SQL["about"], {"subjects": list(subjects), "limit": limit}
        )
        return [_row(*row) for row in rows]

    async def list(
        self, wanted: AuditFilter | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[AuditRow], str | None]:
        """Entries, newest first, and the cursor of older ones. Raises InvalidCursor."""
        wanted = wanted or AuditFilter()
        rows = await self._database.fetch(
            SQL["list"],
            {
                "before": cursors.read_numbered_cursor(_CURSOR, cursor) if cursor else None,
                "actor": wanted.actor,
                "action": wanted.action,
                "subject": wanted.subject,
                "limit": limit + 1,
            },
        )
        entries = [_row(*row) for row in rows[:limit]]
        more = len(rows) > limit
        return entries, cursors.numbered_cursor(_CURSOR, entries[-1].id) if more else None


async def record(
    tx: Connection,
    *,
    actor: str,
    action: str,
    subject: str,
    tenant: int | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write it in the transaction of the action itself: done and on record, or neither."""
    await tx.execute(SQL["record"], Entry(actor, action, subject, tenant, detail).parameters)


def _row(*row: Any) -> AuditRow:
    identity, actor, action, subject, tenant, detail, outcome, created_at = row
    return AuditRow(
        identity, actor, action, subject, tenant, detail, AuditOutcome(outcome), created_at
    )
