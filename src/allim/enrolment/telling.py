"""Telling: alerts, and with each the notification that takes it to a sheet and then to Kakao."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from allim.base.errors import IdempotencyMismatch
from allim.base.validation import validated
from allim.channels.channel import Channel
from allim.database.pool import Connection
from allim.database.statements import Statements
from allim.database.transactions import converse
from allim.enrolment.model import SOURCE, AlertType, Severity, SourceType
from allim.hub.creation import Prepared, create, prepare
from allim.hub.model import NotificationRequest, Priority

SQL = Statements.load("allim.enrolment", "records.sql")

SHEET = "SHEET"
KAKAO = "KAKAO"
LANES = frozenset({SHEET})
"""Where an alert's first delivery waits; the second is born when that has succeeded."""

BATCH = 500
"""Rows in one statement. Twice as many cost the same each, and keep the event loop, which may be an
API's and a relay's too, busy for twice as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert to be told. `old` and `new` are the touched fields, as JSON."""

    alert_type: AlertType
    severity: Severity
    source_type: SourceType
    source_id: str
    category_id: int
    revision: int
    """The record's; the run's id where it is about no record."""
    title: str
    message: str
    course_id: str | None = None
    course_name: str | None = None
    user_id: str | None = None
    user_name: str | None = None
    error_group: str | None = None
    old: bytes | None = None
    new: bytes | None = None

    @property
    def row_key(self) -> str:
        """What makes it the one: a change is told once, whoever finds it how often."""
        return f"{self.source_type}:{self.source_id}:{self.alert_type}:r{self.revision}"


async def tell(
    tx: Connection, alerts: Sequence[Alert], channels: Mapping[str, Channel], *, run_id: int
) -> None:
    """Write alerts and their notifications in a transaction.

    Raises psycopg.errors.UniqueViolation where one was told before.
    """
    for at in range(0, len(alerts), BATCH):
        batch = alerts[at : at + BATCH]
        cursor = await tx.execute(SQL["draw_alert_ids"], {"count": len(batch)})
        ids = [row[0] for row in await cursor.fetchall()]
        prepared = [
            prepare(_request(alert, alert_id, run_id), channels)
            for alert, alert_id in zip(batch, ids, strict=True)
        ]
        rows = [_row(*each) for each in zip(batch, ids, prepared, strict=True)]
        await tx.execute(SQL["insert_alerts"], {"run_id": run_id, "batch": _array(rows)})
        await _create(tx, prepared)


async def _create(tx: Connection, prepared: Sequence[Prepared]) -> None:
    for result in await converse(tx, lambda: create(prepared)):  # type: ignore[misc]
        if isinstance(result, IdempotencyMismatch):
            raise result


def _request(alert: Alert, alert_id: int, run_id: int) -> NotificationRequest:
    data: dict[str, Any] = {
        "alert_id": alert_id,
        "run_id": run_id,
        "alert_type": alert.alert_type,
        "severity": alert.severity,
        "source_type": alert.source_type,
        "source_id": alert.source_id,
        "category_id": alert.category_id,
        "revision": alert.revision,
    }
    for name in ("course_id", "course_name", "user_id", "user_name", "error_group"):
        if (value := getattr(alert, name)) is not None:
            data[name] = value
    if alert.old is not None:
        data["old"] = from_json(alert.old)
    if alert.new is not None:
        data["new"] = from_json(alert.new)
    request = {
        "source": SOURCE,
        "type": alert.alert_type,
        "title": alert.title,
        "message": alert.message,
        "data": data,
        "priority": Priority.HIGH if alert.severity is Severity.HIGH else Priority.NORMAL,
        "deliveries": [
            # Who gets the second, and by which template, the channel's settings say.
            {"channel": SHEET, "row_key": alert.row_key, "then": [{"channel": KAKAO}]}
        ],
    }
    # Pydantic's own words would bring what it says of people into the log.
    return validated(NotificationRequest, request)


def _row(alert: Alert, alert_id: int, notification: Prepared) -> bytes:
    row = {
        "id": alert_id,
        "category_id": alert.category_id,
        "alert_type": alert.alert_type,
        "severity": alert.severity,
        "source_type": alert.source_type,
        "source_id": alert.source_id,
        "course_id": alert.course_id,
        "user_id": alert.user_id,
        "revision": alert.revision,
        "error_group": alert.error_group,
        "title": alert.title,
        "message": alert.message,
        "notification_id": notification.id,
    }
    old, new = alert.old or b"null", alert.new or b"null"
    return to_json(row)[:-1] + b',"old":' + old + b',"new":' + new + b"}"


def _array(rows: Sequence[bytes]) -> str:
    return (b"[" + b",".join(rows) + b"]").decode()
