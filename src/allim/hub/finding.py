"""One field to search in: what somebody typed may be an id, a key or a recipient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.hub.model import MAX_BIGINT

SQL = Statements.load("allim.hub", "finding.sql")
_NUMBER = re.compile(r"#([1-9][0-9]{0,18})", re.ASCII)


class Finder:
    """Answers by indexes only, so that asking is cheap whatever was typed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def notification(self, word: str) -> UUID | None:
        """The notification with this id, or whose delivery has this number (``#7``)."""
        found = _NUMBER.fullmatch(word)
        if found is not None and int(found[1]) <= MAX_BIGINT:
            rows = await self._database.fetch(SQL["by_delivery"], {"id": int(found[1])})
            return rows[0][0] if rows else None
        try:
            rows = await self._database.fetch(SQL["by_id"], {"id": UUID(word)})
        except ValueError:
            return None
        return rows[0][0] if rows else None

    async def known_as(self, word: str) -> Sequence[UUID]:
        """Notifications with this provider's or message's id, row key or idempotency key."""
        return [row[0] for row in await self._database.fetch(SQL["by_word"], {"word": word})]

    async def is_recipient(self, word: str) -> bool:
        """Whether anything was ever addressed to exactly this."""
        [(known,)] = await self._database.fetch(SQL["is_recipient"], {"word": word})
        return bool(known)
