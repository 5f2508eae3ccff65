"""Reading: one notification or delivery with all that happened to it, and listings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import TupleRow

from allim.base.errors import NotFound
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.hub import cursors
from allim.hub.status import DeliveryStatus, NotificationStatus
from allim.hub.stepping import read_in_steps
from allim.hub.views import DeliveryView, NotificationSummary, NotificationView, Page

SQL = Statements.load("allim.hub", "reading.sql")

PAGE_LIMIT = 250
RESPONSE_SHOWN = 2000
"""Characters of a provider's answer that are shown where deliveries are shown in numbers."""
_RESPONSE_WHOLE = 16 * 1024
_FEW = 4_000
"""Up to so many deliveries, notifications are named rather than looked for."""
_JUDGED = ("status", "source", "type", "channel", "recipient", "q")
"""What no index knows: looked for row by row, in steps, so that what is rare or not there at all
does not make one request read the whole table."""
_DELIVERY_JUDGED = frozenset({"status", "channel", "error_code"})
_UNFINISHED = frozenset({NotificationStatus.PENDING, NotificationStatus.PROCESSING})
_UNSENT = frozenset(
    {
        NotificationStatus.FAILED,
        NotificationStatus.PARTIALLY_FAILED,
        NotificationStatus.SKIPPED,
        NotificationStatus.CANCELED,
        NotificationStatus.EXPIRED,
    }
)
"""Each of these has a delivery that delivery_unsent has."""
_PARKED = frozenset(
    {
        DeliveryStatus.DEAD,
        DeliveryStatus.HELD,
        DeliveryStatus.SKIPPED,
        DeliveryStatus.FAILED,
        DeliveryStatus.ACCEPTED,
    }
)
"""What delivery_parked has."""
_CLOCK_SLACK = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationFilter:
    """Which notifications; every field that is set must fit. `q` is looked for in words.

    Of several recipients any may fit: the spellings of one.
    """

    ids: Sequence[UUID] | None = None
    status: Sequence[NotificationStatus] | None = None
    source: str | None = None
    type: str | None = None
    channel: str | None = None
    recipient: str | Sequence[str] | None = None
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
    provider_message_id: str | None = None
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
        wanted = await self._named(wanted)
        statement, parameters = _notifications_statement(wanted)
        judged = any(getattr(wanted, name) is not None for name in _JUDGED)
        found = await read_in_steps(
            self._database, statement, parameters, before=before, limit=limit + 1, judged=judged
        )
        items = [NotificationSummary.model_validate(item) for item in found.items[:limit]]
        if len(found.items) > limit:
            return Page(items=items, next=cursors.notification_cursor(items[-1].id))
        following = None if found.go_on is None else cursors.notification_cursor(found.go_on)
        return Page(items=items, next=following)

    async def deliveries(
        self, wanted: DeliveryFilter, *, limit: int = 50, cursor: str | None = None
    ) -> Page[DeliveryView]:
        """A page of deliveries, newest first. Raises InvalidCursor."""
        before = cursors.read_delivery_cursor(cursor) if cursor else None
        statement, parameters, judged = _deliveries_statement(wanted)
        found = await read_in_steps(
            self._database, statement, parameters, before=before, limit=limit + 1, judged=judged
        )
        items = [DeliveryView.model_validate(item) for item in found.items[:limit]]
        if len(found.items) > limit:
            return Page(items=items, next=cursors.delivery_cursor(items[-1].id))
        following = None if found.go_on is None else cursors.delivery_cursor(found.go_on)
        return Page(items=items, next=following)

    async def _named(self, wanted: NotificationFilter) -> NotificationFilter:
        """The same, by id where few can fit; where many can, the newest rows have some soon."""
        if wanted.status and _UNFINISHED.issuperset(wanted.status):
            rows = await self._database.fetch(SQL["unfinished"], {"most": _FEW + 1})
            wanted = _among(rows, wanted)
        if wanted.recipient is not None:
            rows = await self._database.fetch(
                SQL["to_recipients"],
                {"recipients": _recipients(wanted.recipient), "most": _FEW + 1},
            )
            wanted = _among(rows, wanted)
        return wanted


def _among(rows: Sequence[TupleRow], wanted: NotificationFilter) -> NotificationFilter:
    if len(rows) > _FEW:
        return wanted
    few = {identity for (identity,) in rows}
    return replace(wanted, ids=list(few if wanted.ids is None else few.intersection(wanted.ids)))


def _recipients(wanted: str | Sequence[str]) -> list[str]:
    return [wanted] if isinstance(wanted, str) else list(wanted)


def _notifications_statement(
    wanted: NotificationFilter,
) -> tuple[LiteralString, dict[str, Any]]:
    parameters: dict[str, Any] = {"status": None if wanted.status is None else list(wanted.status)}
    filters: LiteralString = ""
    judged: LiteralString = ""
    ranges: LiteralString = ""
    for name in ("source", "type"):
        if (value := getattr(wanted, name)) is not None:
            parameters[name] = value
            judged += " " + SQL["notification_" + name]
    if wanted.tenant_id is not None:
        parameters["tenant_id"] = wanted.tenant_id
        filters += " " + SQL["notification_tenant_id"]
    if wanted.recipient is not None:
        parameters["recipient"] = _recipients(wanted.recipient)
    if wanted.ids is not None:
        parameters["ids"] = list(wanted.ids)
        filters += " " + SQL["notification_ids"]
    places = [name for name in ("channel", "recipient") if getattr(wanted, name) is not None]
    if places:
        parameters.setdefault("channel", wanted.channel)
        judged += " " + SQL["_".join(["notification", *places])]
    if wanted.since is not None:
        parameters |= {"from": wanted.since, "from_id": _floor_id(wanted.since, -_CLOCK_SLACK)}
        filters += " " + SQL["notification_from"]
        ranges += " " + SQL["notification_from_id"]
    if wanted.until is not None:
        parameters |= {"to": wanted.until, "to_id": _floor_id(wanted.until, _CLOCK_SLACK)}
        filters += " " + SQL["notification_to"]
        ranges += " " + SQL["notification_to_id"]
    if wanted.q is not None:
        parameters["q"] = f"%{_escaped(wanted.q)}%"
        judged += " " + SQL["notification_q"]
    if wanted.status and _UNSENT.issuperset(wanted.status) and wanted.ids is None:
        source = SQL["scanned_unsent"].replace("{ranges}", ranges)
        return _composed("notifications", source, filters + judged), parameters
    source = SQL["scanned"].replace("{filters}", filters + ranges)
    return _composed("notifications", source, judged), parameters


def _deliveries_statement(
    wanted: DeliveryFilter,
) -> tuple[LiteralString, dict[str, Any], bool]:
    parameters: dict[str, Any] = {"response": RESPONSE_SHOWN}
    filters: LiteralString = ""
    judged: LiteralString = ""
    for field in fields(wanted):
        if (value := getattr(wanted, field.name)) is None:
            continue
        parameters[field.name] = list(value) if field.name == "status" else value
        if field.name == "recipient":
            continue
        fragment: LiteralString = " " + SQL["delivery_" + field.name]
        if field.name in _DELIVERY_JUDGED or wanted.recipient is not None:
            judged += fragment
        else:
            filters += fragment
    parked = bool(wanted.status) and _PARKED.issuperset(wanted.status or ())
    if wanted.recipient is not None:
        source = SQL["deliveries_to"]
    elif parked and not filters:
        parameters["channel"] = wanted.channel
        judged = "" if wanted.error_code is None else " " + SQL["delivery_error_code"]
        source = SQL["deliveries_parked"]
    else:
        source = SQL["deliveries_scanned"].replace("{filters}", filters)
    return _composed("deliveries", source, judged), parameters, bool(judged)


def _composed(
    name: str, source: LiteralString = "", judged_filters: LiteralString = ""
) -> LiteralString:
    return (
        SQL[name]
        .replace("{source}", source)
        .replace("{head}", SQL["notification_head"])
        .replace("{delivery}", SQL["delivery_json"])
        .replace("{judged_filters}", judged_filters)
        .replace("{judged}", SQL["judged"])
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
