"""What an operator does with events: replay and discard; and the upkeep of what was sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.events.dead_letters import ERROR_KIND
from allim.events.relaying.box import STATEMENTS as BOX
from allim.events.relaying.box import mark_heads
from allim.relay.ordered.message import Line
from allim.relay.ordered.relay import LANE

SQL = Statements.load("allim.events.relaying", "operations.sql")
BATCH = 1000
MOST = 1_000_000
"""Messages that one call replays or discards."""
PRUNE_BLOCKS = 1000

REPLAYABLE = frozenset({"SENT", "FAILED", "DEAD", "DISCARDED"})
DISCARDABLE = frozenset({"PENDING", "FAILED", "DEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which messages; every field that is set must fit. `until` is not included."""

    statuses: Collection[str] = ("DEAD",)
    topic: str | None = None
    key: str | None = None
    error: str | None = None
    """What the error begins with, up to the first colon: see `events/dead_letters.py`."""
    since: datetime | None = None
    until: datetime | None = None


class OutboxOperator:
    """Replays and discards. `wake` is told to wake the relays of events afterwards.

    Both work in batches, each in a transaction of its own: what is interrupted half way may
    be called again.
    """

    def __init__(
        self, database: Database, wake: Callable[[Collection[str]], None] = lambda _: None
    ) -> None:
        self._database = database
        self._wake = wake

    async def chosen(self, selection: Selection) -> Sequence[UUID]:
        """The ids of what a selection means now, oldest first, a million at most."""
        rows = await self._database.fetch(
            SQL["chosen"].replace("{error_kind}", ERROR_KIND),
            {
                "statuses": list(selection.statuses),
                "topic": selection.topic,
                "key": selection.key,
                "error": selection.error,
                "since": selection.since,
                "until": selection.until,
                "limit": MOST,
            },
        )
        return [identity for (identity,) in rows]

    async def replay(self, ids: Sequence[UUID]) -> int:
        """Have messages published again, each key in order; how many will be.

        Consumers know them by their event ids. What is waiting already is passed over; what
        failed is tried at once, with all its retries. What was discarded has given up its place:
        it may leave before earlier messages of its key that still wait.
        """
        replayed = 0
        for batch in _batches(ids):
            async with self._database.transaction() as tx:
                await _lock(tx, batch)
                replayed += len(await (await tx.execute(SQL["replay"], {"ids": batch})).fetchall())
            self._wake([LANE])
        return replayed

    async def discard(self, ids: Sequence[UUID]) -> int:
        """Give messages up: they are not published any more, and their keys go on; how many."""
        discarded = 0
        for batch in _batches(ids):
            async with self._database.transaction() as tx:
                await _lock(tx, batch)
                rows = await (await tx.execute(SQL["discard"], {"ids": batch})).fetchall()
                discarded += len(rows)
                lines = {Line(slot, topic, key) for _, slot, topic, key in rows if key is not None}
                await mark_heads(tx, lines)
            self._wake([LANE])
        return discarded

    async def prune(self, seconds: float) -> int:
        """Delete what was sent or discarded longer ago than `seconds`; how many."""
        ((any_old, blocks),) = await self._database.fetch(SQL["anything_old"], {"seconds": seconds})
        if not any_old:
            return 0
        deleted = 0
        for first in range(0, blocks, PRUNE_BLOCKS):
            async with self._database.transaction() as tx:
                cursor = await tx.execute(
                    SQL["prune"],
                    {"first": first, "end": first + PRUNE_BLOCKS, "seconds": seconds},
                )
                deleted += cursor.rowcount
        return deleted


async def _lock(tx: Connection, ids: Sequence[UUID]) -> None:
    """Against relays that park and drain: who changes a line alone sees what is in it."""
    rows = await (await tx.execute(SQL["slots_of"], {"ids": ids})).fetchall()
    await tx.execute(BOX["lock_slots"], {"slots": [slot for (slot,) in rows]})


def _batches(ids: Sequence[UUID]) -> Iterable[list[UUID]]:
    return (list(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH))
