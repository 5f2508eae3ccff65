"""Failed logins in the audit log: all are counted, and no number of guesses floods it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.console.sessions import LOGIN, NOBODY, NoEntry
from allim.hub.audit import AuditLog, Entry

SECONDS = 300.0
ROWS = 50
EXACTLY = 10
ELSEWHERE = "elsewhere"
"""Where those come from that have no row of their own any more."""


@dataclass(slots=True)
class _Row:
    tries: int = 0
    number: int | None = None


class FailedLogins:
    """Writes a row for each address, key and reason in SECONDS, with the number of its tries.

    The first ROWS of that time get one of their own, all others share one. Up to EXACTLY the
    number of tries is exact; from there on it is written when it has doubled, so that guesses
    cost few writes either. What was given as the key is written nowhere.
    """

    def __init__(self, audit: AuditLog, clock: Clock = SYSTEM_CLOCK) -> None:
        self._audit = audit
        self._clock = clock
        self._rows: dict[tuple[str, str, str], _Row] = {}
        self._until = clock() + SECONDS
        self._writing = asyncio.Lock()

    async def note(self, refusal: NoEntry, client: str) -> None:
        """Put a failed login from the address `client` on record. Raises DatabaseUnavailable."""
        if self._clock() >= self._until:
            self._rows, self._until = {}, self._clock() + SECONDS
        about = refusal.name, refusal.code, client
        if about not in self._rows and len(self._rows) >= ROWS:
            about, refusal = (NOBODY, refusal.code, ELSEWHERE), NoEntry(refusal.code, NOBODY)
        row = self._rows.setdefault(about, _Row())
        row.tries += 1
        if row.tries > EXACTLY and row.tries & (row.tries - 1):
            return
        tries = row.tries
        async with self._writing:
            if row.number is None:
                detail = {"from": about[-1], "code": refusal.code, "tries": tries}
                row.number = await self._audit.refused(
                    Entry(refusal.name, LOGIN, "console", refusal.tenant, detail)
                )
            else:
                await self._audit.counted(row.number, tries)
