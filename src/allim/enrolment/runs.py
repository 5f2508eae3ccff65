"""The run log: every call of the sync, those that were refused too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, LiteralString

from allim.base.errors import NotFound
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.enrolment.model import RunStatus, TriggerType
from allim.enrolment.views import LockView, RunView
from allim.hub.cursors import numbered_cursor, read_numbered_cursor
from allim.hub.views import Page

SQL = Statements.load("allim.enrolment", "runs.sql")
_CURSOR = b"r"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs; every field that is set must fit. `since` is included, `until` is not."""

    status: RunStatus | None = None
    trigger_type: TriggerType | None = None
    category_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None


class Runs:
    """Reads the run log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, wanted: RunFilter, *, limit: int = 50, cursor: str | None = None
    ) -> Page[RunView]:
        """A page of runs, newest first. Raises InvalidCursor."""
        parameters: dict[str, Any] = {
            "before": read_numbered_cursor(_CURSOR, cursor) if cursor else None,
            "limit": limit + 1,
        }
        filters: LiteralString = ""
        for name in (field.name for field in fields(wanted)):
            if (value := getattr(wanted, name)) is not None:
                parameters[name] = value
                filters += SQL["run_" + name] + " "
        rows = await self._database.fetch(run_statement("runs", filters), parameters)
        items = [RunView.model_validate(row[0]) for row in rows]
        return Page.of(items, limit, lambda last: numbered_cursor(_CURSOR, last.id))

    async def succeeded(self, category: int) -> int:
        """How many runs of a category have succeeded."""
        rows = await self._database.fetch(SQL["runs_succeeded"], {"category_id": category})
        return int(rows[0][0])

    async def one(self, run: int) -> RunView:
        """One run. Raises NotFound."""
        rows = await self._database.fetch(run_statement("one_run"), {"id": run})
        if not rows:
            raise NotFound("run_not_found", f"there is no run {run}")
        return RunView.model_validate(rows[0][0])

    async def locks(self) -> Sequence[LockView]:
        """The locks that are held, or ran out and were not yet taken over."""
        return [LockView.model_validate(row[0]) for row in await self._database.fetch(SQL["locks"])]


def run_statement(name: str, filters: LiteralString = "") -> LiteralString:
    """A statement that shows runs, with its fragments in place."""
    return SQL[name].replace("{run}", SQL["run_json"]).replace("{filters}", filters)
