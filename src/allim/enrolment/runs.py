"""The run log: every call of the sync, those that were refused too."""

from __future__ import annotations

from dataclasses import dataclass

from allim.database.pool import Database
from allim.enrolment.model import RunStatus, TriggerType
from allim.enrolment.views import RunView
from allim.hub.views import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs; every field that is set must fit."""

    status: RunStatus | None = None
    trigger_type: TriggerType | None = None
    category_id: int | None = None


class Runs:
    """Reads the run log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, wanted: RunFilter, *, limit: int = 50, cursor: str | None = None
    ) -> Page[RunView]:
        """A page of runs, newest first. Raises InvalidCursor."""
        raise NotImplementedError

    async def one(self, run: int) -> RunView:
        """One run. Raises NotFound."""
        raise NotImplementedError
