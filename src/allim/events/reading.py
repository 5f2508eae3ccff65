"""Reading the outbox: one event, listings, and the keys that are blocked."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import TupleRow
from pydantic_core import from_json

from allim.base import base64url
from allim.base.errors import FieldProblem, InvalidRequest, NotFound
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.events.dead_letters import ERROR_KIND
from allim.events.views import BlockedKey, EventPage, EventStatus, EventSummary, EventView

SQL = Statements.load("allim.events", "reading.sql")

PAGE_LIMIT = 250
WAITING_COUNTED = 10_000
_SCAN_FIRST = 500
_SCAN_LIMIT = 50_000
"""Events that one request looks at before it gives back a short page."""
_FAILED = frozenset({EventStatus.FAILED, EventStatus.DEAD})


class InvalidCursor(InvalidRequest):
    """A cursor that no page gave."""

    status = 400

    def __init__(self) -> None:
        super().__init__(
            [FieldProblem("cursor", "invalid_cursor", "is not one that a page gave as `next`")],
            code="invalid_cursor",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events; every field that is set must fit."""

    status: Sequence[EventStatus] | None = None
    topic: str | None = None
    key: str | None = None
    error: str | None = None
    """What its error begins with, up to the first colon: what dead events are grouped by."""
    since: datetime | None = None
    until: datetime | None = None


class EventReader:
    """Reads the outbox. Payloads that are encrypted stay so: only relays decrypt."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def event(self, identity: UUID) -> EventView:
        """One event with its payload; raises NotFound."""
        rows = await self._database.fetch(_composed("one_event"), {"id": identity})
        if not rows:
            raise NotFound("event_not_found", f"there is no event {identity}")
        summary = _summary(rows[0])
        view = EventView(**summary.model_dump())
        if not view.encrypted:
            _show_payload(view, bytes(rows[0][-1]))
        return view

    async def events(
        self, wanted: EventFilter, *, limit: int = 50, cursor: str | None = None
    ) -> EventPage[EventSummary]:
        """A page of events, newest first. A page may be short though there is a next one.

        Raises InvalidCursor.
        """
        before = _read_cursor(cursor)
        filters, parameters = _filters(wanted)
        if wanted.status is not None and _FAILED.issuperset(wanted.status):
            statement = _composed("failed_events", filters)
            rows = await self._database.fetch(
                statement, {**parameters, "before": before, "limit": limit + 1}
            )
            return _page([_summary(row) for row in rows], limit)
        items: list[EventSummary] = []
        scanned, scan = 0, max(_SCAN_FIRST, limit + 1)
        while True:
            (looked_at, last, *_), *found = await self._database.fetch(
                _composed("events", filters),
                {**parameters, "before": before, "scan": scan, "limit": limit + 1 - len(items)},
            )
            items += [_summary(row[2:]) for row in found]
            scanned += looked_at
            if len(items) > limit or looked_at < scan:
                return _page(items, limit)
            if scanned >= _SCAN_LIMIT:
                return EventPage(items=items, next=_cursor(last))
            before, scan = last, min(scan * 4, _SCAN_LIMIT - scanned)

    async def blocked(
        self, *, topic: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> EventPage[BlockedKey]:
        """A page of keys that are blocked, by topic and key. Raises InvalidCursor."""
        after_topic, after_key = _read_key_cursor(cursor)
        rows = await self._database.fetch(
            SQL["blocked_keys"],
            {
                "topic": topic,
                "after_topic": after_topic,
                "after_key": after_key,
                "limit": limit + 1,
                "most": WAITING_COUNTED,
            },
        )
        names = list(BlockedKey.model_fields)
        items = [BlockedKey(**dict(zip(names, row, strict=True))) for row in rows]
        if len(items) <= limit:
            return EventPage(items=items)
        last = items[limit - 1]
        following = base64url.encoded(f"{last.topic}\0{last.key}".encode())
        return EventPage(items=items[:limit], next=following)


def _summary(row: TupleRow) -> EventSummary:
    columns: dict[str, Any] = dict(zip(EventSummary.model_fields, row, strict=False))
    columns["encrypted"] = columns["encrypted"] is not None
    return EventSummary(**columns)


def _show_payload(view: EventView, payload: bytes) -> None:
    media_type = (view.content_type or "").partition(";")[0].strip()
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            view.payload = from_json(payload)
        except ValueError:
            pass  # It says that it is JSON, but is not: shown as the bytes that it is.
        else:
            return
    view.payload_base64 = base64.b64encode(payload).decode()


def _filters(wanted: EventFilter) -> tuple[LiteralString, dict[str, Any]]:
    places: LiteralString = "true"
    parameters: dict[str, Any] = {}
    for field in fields(wanted):
        if (value := getattr(wanted, field.name)) is not None:
            parameters[field.name] = list(value) if field.name == "status" else value
            places += " AND " + SQL[field.name].replace("{error_kind}", ERROR_KIND)
    return places, parameters


def _composed(name: str, filters: LiteralString = "true") -> LiteralString:
    return (
        SQL[name]
        .replace("{no_columns}", SQL["no_columns"])
        .replace("{columns}", SQL["event_columns"])
        .replace("{filters}", filters)
    )


def _page(items: list[EventSummary], limit: int) -> EventPage[EventSummary]:
    if len(items) <= limit:
        return EventPage(items=items)
    return EventPage(items=items[:limit], next=_cursor(items[limit - 1].id))


def _cursor(identity: UUID) -> str:
    return base64url.encoded(identity.bytes)


def _read_cursor(cursor: str | None) -> UUID | None:
    if cursor is None:
        return None
    raw = _decoded(cursor)
    if len(raw) != 16:
        raise InvalidCursor
    return UUID(bytes=raw)


def _read_key_cursor(cursor: str | None) -> tuple[str | None, str | None]:
    if cursor is None:
        return None, None
    try:
        topic, separator, key = _decoded(cursor).decode().partition("\0")
    except UnicodeDecodeError:
        raise InvalidCursor from None
    if not separator or "\0" in key:
        raise InvalidCursor
    return topic, key


def _decoded(cursor: str) -> bytes:
    try:
        return base64url.decoded(cursor)
    except ValueError:
        raise InvalidCursor from None
