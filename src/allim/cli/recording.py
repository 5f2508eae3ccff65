"""What commands change is on record, under the name of whoever typed them."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from allim.database.pool import Database

Answer = TypeVar("Answer")


def operator_name() -> str:
    """Who types: ``shell:kim``."""
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):
        return "shell"


async def on_record(
    database: Database,
    action: str,
    subject: str,
    run: Callable[[], Awaitable[Answer]],
    *,
    detail: Mapping[str, Any] | None = None,
) -> Answer:
    """Do something, in the audit log from its beginning to its end."""
    from allim.hub.audit import AuditLog, Entry

    entry = Entry(operator_name(), action, subject, None, detail)
    return await AuditLog(database).around(entry, run)
