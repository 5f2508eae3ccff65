"""The outbox in PostgreSQL, as the ordered engine sees it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from allim.database.kept_connection import KeptConnection
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.events.relaying.message import OutboxMessage
from allim.relay.low_water import Snapshot
from allim.relay.ordered.box import Failure, Fetched, Holdings, Landed, Settlement
from allim.relay.ordered.message import Line

STATEMENTS = Statements.load("allim.events.relaying", "box.sql")
ERROR_LIMIT = 2000
"""Characters of an error that are kept with the message."""

NOTHING_BLOCKED = Landed()
NO_HEADERS: dict[str, str] = {}


class OutboxBox:
    """Messages of `outbox_messages`. Implements relay.ordered.box.OrderedBox.

    With `dead_blocks` a dead message holds up its line until an operator replays or discards it.
    """

    def __init__(self, database: Database, *, dead_blocks: bool = False) -> None:
        self._database = database
        self._dead_blocks = dead_blocks

    async def register(self, relay: str, lease: float) -> None:
        """Begin an incarnation."""
        async with self._database.transaction() as tx:
            await tx.execute(STATEMENTS["forget_retired"])
            await tx.execute(STATEMENTS["register"], {"relay": relay, "lease": lease})

    def fence_keeper(self, relay: str, lease: float) -> Fence:
        """A keeper of its lease, with a connection of its own."""
        return Fence(self._database, relay, lease)

    async def balance(self, relay: str) -> Holdings | None:
        """Retire the dead, take free slots up to the fair share; None where the lease is lost."""
        mine = {"relay": relay}
        holds, held, slots, relays, free, dead = await self._look(mine)
        if holds and (dead or free):
            await self._database.fetch(STATEMENTS["retire_dead"])
            holds, held, slots, relays, free, _ = await self._look(mine)
        if not holds:
            return None
        share = -(-slots // max(relays, 1))
        if free and held < share:
            await self._database.fetch(STATEMENTS["take_slots"], {**mine, "limit": share - held})
        ((mine_now, unfenced),) = await self._database.fetch(STATEMENTS["held"], mine)
        return Holdings(frozenset(mine_now), share, frozenset(unfenced))

    async def release(self, relay: str, slots: Collection[int]) -> None:
        """Give slots back, of which nothing is in flight."""
        async with self._database.transaction() as tx:
            await tx.execute(STATEMENTS["release"], {"relay": relay, "slots": list(slots)})

    async def retire(self, relay: str, *, clean: bool) -> None:
        """End an incarnation; its slots are free at once. `clean`: it sends nothing any more."""
        async with self._database.transaction() as tx:
            await tx.execute(STATEMENTS["retire"], {"relay": relay, "clean": clean})

    async def fenced(self, relays: Collection[str]) -> None:
        """Of these ended incarnations nothing can come any more."""
        async with self._database.transaction() as tx:
            await tx.execute(STATEMENTS["fenced"], {"relays": list(relays)})

    async def fetch(
        self, marks: Sequence[tuple[int, int]], limit: int, *, each: int | None = None
    ) -> Fetched[OutboxMessage]:
        """What is ready in these slots above these marks; pairs of slot and mark."""
        rows = await self._database.run_pinned(
            STATEMENTS["fetch"],
            {
                "slots": [slot for slot, _ in marks],
                "marks": [mark for _, mark in marks],
                "limit": limit,
                "each": min(each or limit, limit),
            },
        )
        at = next(place for place, row in enumerate(rows) if row[0] < 0)
        _, unlisted, _, snapshot = rows.pop(at)[:4]
        return Fetched([_message(row) for row in rows], Snapshot.parse(snapshot, unlisted))

    async def blocked(self, slots: Collection[int]) -> set[Line]:
        """The lines of these slots that have parked messages."""
        rows = await self._database.run_pinned(STATEMENTS["blocked"], {"slots": list(slots)})
        return {Line(*row) for row in rows}

    async def due(
        self, slots: Collection[int], limit: int, *, without: Collection[str] = ()
    ) -> Sequence[OutboxMessage]:
        """Parked messages that are due, each line in order from its head.

        A head that has failed before comes alone: what follows it is not to be bothered yet.
        """
        rows = await self._database.run_pinned(
            STATEMENTS["due"], {"slots": list(slots), "limit": limit, "without": list(without)}
        )
        found: list[OutboxMessage] = []
        ended: set[Line] = set()
        for *columns, waits in rows:
            message = _message(columns)
            if message.line in ended:
                continue
            if (waits or message.retry_count) and message.line is not None:
                ended.add(message.line)
            if not waits:
                found.append(message)
        return found

    async def settle(self, relay: str, settlement: Settlement[OutboxMessage]) -> Landed | None:
        """Write what became of a turn; None where the lease is lost and nothing was written."""
        if settlement.is_plain:
            rows = await self._database.run_pinned(
                STATEMENTS["settle_sent"], {"relay": relay, **_places(settlement.sent)}
            )
            return NOTHING_BLOCKED if rows[0][0] else None
        async with self._database.transaction(pinned=True) as tx:
            cursor = await tx.execute(STATEMENTS["fence"], {"relay": relay})
            if await cursor.fetchone() is None:
                return None
            return await self._settle_trouble(tx, settlement)

    async def _settle_trouble(
        self, tx: Connection, settlement: Settlement[OutboxMessage]
    ) -> Landed:
        failures = [*settlement.retried, *settlement.buried]
        lines = {
            *(settlement.drained or ()),
            *(m.line for m in settlement.parked if m.line is not None),
            *(f.message.line for f in failures if f.message.line is not None),
        }
        await tx.execute(STATEMENTS["lock_slots"], {"slots": sorted({line.slot for line in lines})})
        await tx.execute(STATEMENTS["settle_each"], _told(settlement, self._dead_blocks))
        if settlement.parked:
            await tx.execute(STATEMENTS["park"], _places(settlement.parked))
        return await mark_heads(tx, lines)

    async def _look(self, mine: dict[str, str]) -> tuple[bool, int, int, int, bool, bool]:
        holds, held, slots, relays, free, dead = (
            await self._database.fetch(STATEMENTS["share"], mine)
        )[0]
        return holds, held, slots, relays, free, dead


async def mark_heads(tx: Connection, lines: Collection[Line]) -> Landed:
    """Give every line that has parked messages a due time; which still have any."""
    cursor = await tx.execute(
        STATEMENTS["mark_heads"],
        {
            "slots": [line.slot for line in lines],
            "topics": [line.topic for line in lines],
            "keys": [line.key for line in lines],
        },
    )
    blocked = {Line(slot, topic, key): delay for slot, topic, key, delay in await cursor.fetchall()}
    return Landed(blocked, [line for line in lines if line not in blocked])


class Fence:
    """Extends the lease of one incarnation, on a connection of its own."""

    def __init__(self, database: Database, relay: str, lease: float) -> None:
        self._connection = KeptConnection(database, "allim heartbeat")
        self._parameters = {"relay": relay, "lease": lease}

    def beat(self) -> bool:
        """Extend it; False where it is lost for good. Raises DatabaseUnavailable."""
        with self._connection.use() as connection:
            return connection.execute(STATEMENTS["beat"], self._parameters).fetchone() is not None

    def close(self) -> None:
        """Close the connection; the next beat opens a new one."""
        self._connection.close()


def _message(row: Sequence[Any]) -> OutboxMessage:
    slot, seq, id_, topic, key, payload, headers, kind, encryption, created, retries, version = row
    return OutboxMessage(
        slot,
        seq,
        None if key is None else Line(slot, topic, key),
        id_,
        topic,
        key,
        payload,
        headers or NO_HEADERS,
        kind,
        encryption,
        created,
        retries,
        version,
    )


def _places(messages: Iterable[OutboxMessage]) -> dict[str, list[int]]:
    slots, seqs = [], []
    for message in messages:
        slots.append(message.slot)
        seqs.append(message.seq)
    return {"slots": slots, "seqs": seqs}


def _told(settlement: Settlement[OutboxMessage], dead_blocks: bool) -> dict[str, list[Any]]:
    told: list[tuple[Any, ...]] = [
        (message.id, message.version, "SENT", False, 0, None, None) for message in settlement.sent
    ]
    told += [
        (f.message.id, f.message.version, "FAILED", True, int(f.spent), f.delay, _words(f))
        for f in settlement.retried
    ]
    told += [
        # Without a key nothing waits behind it, so it blocks nobody.
        (
            f.message.id,
            f.message.version,
            "DEAD",
            dead_blocks and f.message.line is not None,
            0,
            None,
            _words(f),
        )
        for f in settlement.buried
    ]
    names = ("ids", "versions", "statuses", "parks", "spends", "delays", "errors")
    columns = zip(*told, strict=True) if told else ([] for _ in names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _words(failure: Failure[OutboxMessage]) -> str:
    words = f"{failure.code}: {failure.detail}" if failure.detail else failure.code
    return words.replace("\0", "").encode(errors="replace").decode()[:ERROR_LIMIT]
