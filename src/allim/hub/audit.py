"""The audit log: what people did, with who and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb

from allim.database.pool import Connection
from allim.database.statements import Statements

SQL = Statements.load("allim.hub", "replays.sql")


async def record(
    tx: Connection,
    *,
    actor: str,
    action: str,
    subject: str,
    tenant: int | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write it in the transaction of the action itself: done and on record, or neither.

    `action` is a stable word (``replay.create``), `subject` what it was done to (``replay 7``).
    """
    await tx.execute(
        SQL["record"],
        {
            "actor": actor,
            "action": action,
            "subject": subject,
            "tenant_id": tenant,
            "detail": Jsonb(dict(detail or {})),
        },
    )
