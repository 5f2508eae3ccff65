"""Reading: one notification or delivery with all that happened to it, and listings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from allim.base.errors import NotFound
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.hub import cursors
from allim.hub.status import DeliveryStatus, NotificationStatus
from allim.hub.views import DeliveryView, NotificationSummary, NotificationView, Page

SQL = Statements.load("allim.hub", "reading.sql")

PAGE_LIMIT = 250
RESPONSE_SHOWN = 2000
"""Characters of a provider's answer that are shown where deliveries are shown in numbers."""
_RESPONSE_WHOLE = 16 * 1024
_SCAN_FIRST = 500
_SCAN_LIMIT = 50_000
"""Notifications that one request looks at before it gives back a short page."""
_JUDGED = ("status", "source", "type", "channel", "q")
"""What no index knows: looked for row by row, in steps, so that what is rare or not there at all
does not make one request read the whole table."""
_CLOCK_SLACK = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationFilter:
    """Which notifications; every field that is set must fit. `q` is looked for in words."""

    status: Sequence[NotificationStatus] | None = None
    source: str | None = None
    type: str | None = None
    channel: str | None = None
    recipient: str | None = None
    tenant_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    q: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries; every field that is set must fit."""

    status: Sequence[DeliveryStatus] | None = None
    channel: str | None = None
    recipient: str | None = None
    notification_id: UUID | None = None
    error_code: str | None = None
    tenant_id: int | None = None
    provider_id: str | None = None
    row_key: str | None = None


class Reader:
    """Reads for one caller at a time: `tenant` restricts what it may see (None: everything)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def notification(self, identity: UUID, tenant: int | None = None) -> NotificationView:
        """One notification with its deliveries and attempts; raises NotFound."""
        statement = _composed("one_notification")
        if tenant is not None:
            statement += SQL["notification_tenant_id"]
        rows = await self._database.fetch(
            statement, {"id": identity, "response": RESPONSE_SHOWN, "tenant_id": tenant}
        )
        if not rows:
            raise NotFound("notification_not_found", f"there is no notification {identity}")
        return NotificationView.model_validate(rows[0][0])

    async def delivery(self, identity: int, tenant: int | None = None) -> DeliveryView:
        """One delivery with its attempts; raises NotFound."""
        statement = _composed("one_delivery")
        if tenant is not None:
            statement += SQL["delivery_tenant_id"]
        rows = await self._database.fetch(
            statement, {"id": identity, "response": _RESPONSE_WHOLE, "tenant_id": tenant}
        )
        if not rows:
            raise NotFound("delivery_not_found", f"there is no delivery {identity}")
        return DeliveryView.model_validate(rows[0][0])

    async def notifications(
        self, wanted: NotificationFilter, *, limit: int = 50, cursor: str | None = None
    ) -> Page[NotificationSummary]:
        """A page of notifications, newest first. Raises InvalidCursor."""
        before = cursors.read_notification_cursor(cursor) if cursor else None
        statement, parameters = _notifications_statement(wanted)
        judged = any(getattr(wanted, name) is not None for name in _JUDGED)
        scan = max(_SCAN_FIRST, limit + 1) if judged else limit + 1
        items: list[NotificationSummary] = []
        scanned = 0
        while True:
            rows = await self._database.fetch(
                statement,
                {**parameters, "before": before, "scan": scan, "limit": limit + 1 - len(items)},
            )
            (looked_at, last, _), *found = rows
            items += [NotificationSummary.model_validate(row[2]) for row in found]
            scanned += looked_at
            if len(items) > limit:
                page = items[:limit]
                return Page(items=page, next=cursors.notification_cursor(page[-1].id))
            if looked_at < scan:
                return Page(items=items, next=None)
            if scanned >= _SCAN_LIMIT or not judged:
                return Page(items=items, next=cursors.notification_cursor(last))
            before = last
            scan = min(scan * 4, _SCAN_LIMIT - scanned)

    async def deliveries(
        self, wanted: DeliveryFilter, *, limit: int = 50, cursor: str | None = None
    ) -> Page[DeliveryView]:
        """A page of deliveries, newest first. Raises InvalidCursor."""
        before = cursors.read_delivery_cursor(cursor) if cursor else None
        filters: LiteralString = ""
        parameters: dict[str, Any] = {
            "before": before,
            "limit": limit + 1,
            "response": RESPONSE_SHOWN,
        }
        for field in fields(wanted):
            if (value := getattr(wanted, field.name)) is not None:
                parameters[field.name] = list(value) if field.name == "status" else value
                filters += " " + SQL["delivery_" + field.name]
        rows = await self._database.fetch(_composed("deliveries", filters), parameters)
        items = [DeliveryView.model_validate(row[0]) for row in rows]
        if len(items) <= limit:
            return Page(items=items, next=None)
        return Page(items=items[:limit], next=cursors.delivery_cursor(items[limit - 1].id))


def _notifications_statement(
    wanted: NotificationFilter,
) -> tuple[LiteralString, dict[str, Any]]:
    parameters: dict[str, Any] = {"status": None if wanted.status is None else list(wanted.status)}
    filters: LiteralString = ""
    judged: LiteralString = ""
    if wanted.tenant_id is not None:
        parameters["tenant_id"] = wanted.tenant_id
        filters += " " + SQL["notification_tenant_id"]
    for name in ("source", "type"):
        if (value := getattr(wanted, name)) is not None:
            parameters[name] = value
            judged += " " + SQL["notification_" + name]
    places = [name for name in ("channel", "recipient") if getattr(wanted, name) is not None]
    if places:
        parameters.update({name: getattr(wanted, name) for name in places})
        place: LiteralString = " " + SQL["_".join(["notification", *places])]
        if wanted.recipient is None:
            judged += place
        else:
            filters += place
    if wanted.since is not None:
        parameters |= {"from": wanted.since, "from_id": _floor_id(wanted.since, -_CLOCK_SLACK)}
        filters += " " + SQL["notification_from"]
    if wanted.until is not None:
        parameters |= {"to": wanted.until, "to_id": _floor_id(wanted.until, _CLOCK_SLACK)}
        filters += " " + SQL["notification_to"]
    if wanted.q is not None:
        parameters["q"] = f"%{_escaped(wanted.q)}%"
        judged += " " + SQL["notification_q"]
    return _composed("notifications", filters, judged), parameters


def _composed(
    name: str, filters: LiteralString = "", judged_filters: LiteralString = ""
) -> LiteralString:
    return (
        SQL[name]
        .replace("{head}", SQL["notification_head"])
        .replace("{delivery}", SQL["delivery_json"])
        .replace("{judged_filters}", judged_filters)
        .replace("{judged}", SQL["judged"])
        .replace("{filters}", filters)
        + " "
    )


def _floor_id(moment: datetime, slack: timedelta) -> UUID:
    try:
        milliseconds = int((moment + slack).timestamp() * 1000)
    except (OverflowError, ValueError):
        milliseconds = 0 if slack < timedelta() else (1 << 48) - 1
    return UUID(int=min(max(milliseconds, 0), (1 << 48) - 1) << 80)


def _escaped(words: str) -> str:
    """Words for LIKE: its wildcards stand for themselves."""
    return words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
