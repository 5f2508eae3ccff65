"""Reading alerts, and resolving them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from allim.base.errors import NotFound
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.enrolment.model import AlertType, Severity
from allim.enrolment.views import AlertView
from allim.hub.cursors import numbered_cursor, read_numbered_cursor
from allim.hub.views import Page

SQL = Statements.load("allim.enrolment", "alerts.sql")
_CURSOR = b"a"


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
        filters, parameters = _conditions(wanted)
        parameters["before"] = read_numbered_cursor(_CURSOR, cursor) if cursor else None
        parameters["limit"] = limit + 1
        rows = await self._database.fetch(_statement("alerts", filters), parameters)
        items = [AlertView.model_validate(row[0]) for row in rows]
        return Page.of(items, limit, lambda last: numbered_cursor(_CURSOR, last.id))

    async def one(self, alert: int) -> AlertView:
        """One alert. Raises NotFound."""
        return await self._single("one_alert", alert, id=alert)

    async def resolve(self, alert: int, *, by: str | None = None) -> AlertView:
        """Mark an alert as dealt with; once it is, again changes nothing. Raises NotFound."""
        return await self._single("resolve", alert, id=alert, by=by)

    async def _single(self, name: str, alert: int, **parameters: Any) -> AlertView:
        rows = await self._database.fetch(_statement(name), parameters)
        if not rows:
            raise NotFound("alert_not_found", f"there is no alert {alert}")
        return AlertView.model_validate(rows[0][0])


def _conditions(wanted: AlertFilter) -> tuple[LiteralString, dict[str, Any]]:
    parts: list[LiteralString] = []
    parameters: dict[str, Any] = {}
    if wanted.alert_type is AlertType.FAILED:
        parts.append(SQL["alert_is_failed"])
    elif wanted.alert_type is not None:
        parts.append(SQL["alert_alert_type"])
        parameters["alert_type"] = wanted.alert_type
    if wanted.resolved is not None:
        parts.append(SQL["alert_is_resolved" if wanted.resolved else "alert_is_open"])
    for name in ("severity", "category_id", "run_id", "since", "until"):
        if (value := getattr(wanted, name)) is not None:
            parts.append(SQL["alert_" + name])
            parameters[name] = value
    return " ".join(parts), parameters


def _statement(name: str, filters: LiteralString = "") -> LiteralString:
    return SQL[name].replace("{alert}", SQL["alert_json"]).replace("{filters}", filters)
