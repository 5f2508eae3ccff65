"""Looking up templates: in any transaction, and compiled once in a process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.database.transactions import Ask, Deliberation, Reckoning, Rows
from allim.hub.templates.naming import NotStored, Templates, Wanted

if TYPE_CHECKING:
    from allim.hub.templates.rendering import Compiled, Parts, StoredTemplate

SQL = Statements.load("allim.hub.templates", "templates.sql")
COMPILED = 256
"""How many templates stay compiled."""


class TemplateShelf:
    """The templates that this process has met, by what is in them.

    By content and not by id: one process may stand before several databases.
    """

    def __init__(self) -> None:
        self._compiled: OrderedDict[str, Compiled] = OrderedDict()

    def look_up(self, wanted: Collection[Wanted]) -> Deliberation[Templates]:
        """Find templates, in one question; in none where nothing is wanted."""
        if not wanted:
            return Templates({})
        asked, known = list(wanted), dict(self._compiled)
        rows: Rows = yield self._ask(asked, known)
        if all(row[4] is None for row in rows):
            return self._found(asked, rows, known)
        # A large template is compiled for a second.
        found: Templates = yield Reckoning(partial(self._found, asked, rows, known))
        return found

    async def find(self, database: Database, wanted: Collection[Wanted]) -> Templates:
        """The same over a database of ours. Raises DatabaseUnavailable."""
        if not wanted:
            return Templates({})
        asked, known = list(wanted), dict(self._compiled)
        ask = self._ask(asked, known)
        rows = await database.fetch(ask.statement, {"batch": ask.batch})
        if all(row[4] is None for row in rows):
            return self._found(asked, rows, known)
        # In a thread: a large template is compiled for a second.
        return await asyncio.to_thread(self._found, asked, rows, known)

    def _ask(self, asked: list[Wanted], known: Collection[str]) -> Ask:
        batch = {
            "wanted": [
                {
                    "place": place,
                    "tenant_id": tenant,
                    "channel": named.channel,
                    "code": named.code,
                    "language": named.language,
                    "version": named.version,
                }
                for place, (tenant, named) in enumerate(asked)
            ],
            "known": list(known),
        }
        return Ask(SQL["find_templates"], to_json(batch).decode())

    def _found(self, asked: list[Wanted], rows: Rows, known: Mapping[str, Compiled]) -> Templates:
        found: dict[Wanted, StoredTemplate | NotStored] = {}
        texts = {row[3]: row[4] for row in rows if row[4] is not None}
        for place, language, version, digest, _, languages in rows:
            wanted = asked[place]
            if digest is None:
                found[wanted] = NotStored(tuple(sorted(from_json(languages or "[]"))))
                continue
            from allim.hub.templates.rendering import StoredTemplate

            named = wanted[1]
            # What was known when we asked may have had to make room since.
            compiled = known.get(digest) or self._compile(named.channel, digest, texts[digest])
            found[wanted] = StoredTemplate(
                named.code or "", named.channel, language, version, compiled
            )
        return Templates(found)

    def _compile(self, channel: str, digest: str, text: Any) -> Compiled:
        from allim.hub.templates.rendering import Compiled, Parts

        compiled = self._compiled.get(digest)
        if compiled is None:
            compiled = Compiled.of(channel, Parts(**from_json(text)))
            self._compiled[digest] = compiled
            while len(self._compiled) > COMPILED:
                self._compiled.popitem(last=False)
        return compiled


def parts_of(fields: Any) -> Parts:
    """The texts of a request or a view."""
    from allim.hub.templates.rendering import Parts

    return Parts(fields.subject, fields.body, fields.html, fields.blocks)
