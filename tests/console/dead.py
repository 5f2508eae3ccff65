"""Notifications in every state, written straight into the tables."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from allim.database.pool import Database

_DEFAULTS: dict[str, Any] = {
    "channel": "SMS",
    "recipient": "01012345678",
    "status": "DEAD",
    "attempts": 0,
    "max_attempts": 3,
}


async def notification(database: Database, **columns: Any) -> UUID:
    """A notification without deliveries."""
    at = columns.get("created_at", datetime.now(UTC))
    values = {"id": _uuid7(at), "source": "shop", "type": "ORDER", "title": "Order", **columns}
    identity: UUID = await _insert(database, "notification", values)
    return identity


async def delivery(database: Database, of: UUID, **columns: Any) -> int:
    """One delivery of it; dead, unless told otherwise."""
    values = {**_DEFAULTS, "notification_id": of, **columns}
    if values["status"] == "PROCESSING":
        values.setdefault("claim_token", uuid4())
    identity: int = await _insert(database, "delivery", values)
    return identity


async def attempt(database: Database, of: int, number: int, **columns: Any) -> None:
    """One try of a delivery."""
    values = {"delivery_id": of, "attempt_no": number, "worker": "relay-1", **columns}
    await _insert(database, "delivery_attempt", values, returning="delivery_id")


async def event(database: Database, **columns: Any) -> UUID:
    """One dead event."""
    values = {
        "id": uuid4(),
        "topic": "orders",
        "payload": b"{}",
        "slot": 1,
        "status": "DEAD",
        "error_message": "MessageSendFailed: broker said no",
        **columns,
    }
    identity: UUID = await _insert(database, "outbox_messages", values)
    return identity


def _uuid7(at: datetime) -> UUID:
    milliseconds = int(at.timestamp() * 1000)
    return UUID(int=(milliseconds << 80) | (next(_numbers) << 48) | uuid4().int >> 80)


_numbers = count()


async def _insert(
    database: Database, table: str, values: dict[str, Any], returning: str = "id"
) -> Any:
    names = ", ".join(values)
    places = ", ".join(f"%({name})s" for name in values)
    given = {
        name: Jsonb(value) if isinstance(value, dict | list) else value
        for name, value in values.items()
    }
    rows = await database.fetch(
        f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING {returning}", given
    )
    return rows[0][0]
