"""Reading alerts, and resolving them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from allim.database.pool import Database
from allim.enrolment.model import AlertType, Severity
from allim.enrolment.views import AlertView
from allim.hub.views import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFilter:
    """Which alerts; every field that is set must fit. `since` is included, `until` is not."""

    alert_type: AlertType | None = None
    severity: Severity | None = None
    resolved: bool | None = None
    category_id: int | None = None
    run_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None


class Alerts:
    """Reads and resolves alerts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, wanted: AlertFilter, *, limit: int = 50, cursor: str | None = None
    ) -> Page[AlertView]:
        """A page of alerts, newest first. Raises InvalidCursor."""
        raise NotImplementedError

    async def one(self, alert: int) -> AlertView:
        """One alert. Raises NotFound."""
        raise NotImplementedError

    async def resolve(self, alert: int, *, by: str | None = None) -> AlertView:
        """Mark an alert as dealt with; once it is, again changes nothing. Raises NotFound."""
        raise NotImplementedError
