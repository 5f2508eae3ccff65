"""One row of the sheet: what its columns show of a message, and the key that makes it the one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from allim.base.clock import KST
from allim.channels.channel import Message
from allim.relay.work import Work

COLUMNS = ("time", "type", "severity", "category", "course", "user", "message", "row_key")
"""The columns from the left; the header row is the operator's (docs/how-to/connect-a-sheet.md)."""

CELL_LIMIT = 50_000
"""Characters that a cell of Google Sheets holds."""


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A row to be written; `tried_before` when an earlier attempt may have written it."""

    key: str
    message: Message
    tried_before: bool

    @classmethod
    def of(cls, work: Work[Message]) -> SheetRow:
        """The row of a piece of work."""
        message = work.content
        return cls(row_key(message), message, work.attempt_no > 1 or work.rescues > 0)

    def cells(self) -> list[str]:
        """The texts of its columns; nothing in them is a formula."""
        message, data = self.message, self.message.data
        return [
            _cell(text)
            for text in (
                _in_seoul(message.created_at),
                message.type,
                data.get("severity"),
                _named(data, "category_name", "category_id"),
                _named(data, "course_name", "course_id"),
                _named(data, "user_name", "user_id"),
                "\n".join(part for part in (message.title, message.message) if part),
                self.key,
            )
        ]


def row_key(message: Message) -> str:
    """What tells the row from every other: its row key, which is unique per tenant.

    A delivery without one is told by itself, so that it too is written once.
    """
    if message.row_key is None:
        return f"{message.notification_id}/{message.delivery_id}"
    if message.tenant_id is None:
        return message.row_key
    return f"tenant {message.tenant_id}: {message.row_key}"


def _in_seoul(moment: datetime) -> str:
    return moment.astimezone(KST).strftime("%Y-%m-%d %H:%M:%S")


def _named(data: Mapping[str, Any], name: str, identity: str) -> object:
    """Its name and its id, as far as they are known: ``파이썬 입문 (447)``."""
    named, known = data.get(name), data.get(identity)
    if named in (None, ""):
        return known
    return named if known in (None, "") else f"{named} ({known})"


def _cell(value: object) -> str:
    """A text that a cell can hold."""
    if value is None:
        return ""
    text = str(value).replace("\x00", "").encode("utf-8", "replace").decode()
    return text if len(text) <= CELL_LIMIT else text[: CELL_LIMIT - 1] + "…"
