"""Dead events, in groups of one topic and error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from allim.database.pool import Database
from allim.database.statements import Statements

SQL = Statements.load("allim.events", "dead_letters.sql")

ERROR_KIND: LiteralString = SQL["error_kind"]
ERROR_LIMIT = 80
GROUPS = 100
LOOKED_AT = 20_000


@dataclass(frozen=True, slots=True)
class EventGroup:
    """Dead events of one topic whose errors begin alike."""

    topic: str
    error: str
    count: int
    oldest: datetime
    newest: datetime
    sample: str | None


async def dead_event_groups(database: Database) -> Sequence[EventGroup]:
    """The groups of the newest 20,000 dead events, the largest first."""
    statement = SQL["groups"].replace("{error_kind}", ERROR_KIND)
    rows = await database.fetch(statement, {"groups": GROUPS, "most": LOOKED_AT})
    return [EventGroup(*row) for row in rows]
