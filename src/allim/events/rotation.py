"""Key rotation: payloads that an older key has sealed are sealed anew with the current one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.events.encryption import KeyRing, Sealed
from allim.events.errors import DecryptionFailed, EncryptionKeyMissing

SQL = Statements.load("allim.events", "rotation.sql")

SCAN = 10_000
BATCH = 200
UNREADABLE = 1000
"""Payloads that do not decrypt, before it is taken for what it then is: a wrong key."""
_ROUNDS = 20
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did.

    `left` were being settled whenever they were looked at; `unreadable` do not decrypt with
    the key they name, and stay as they are.
    """

    sealed: int
    left: int
    unreadable: Sequence[UUID]


class Rotation:
    """Seals anew, in small transactions. May be stopped and begun again at any time.

    Messages that have left or were discarded are passed over, unless `finished` is set: to
    be able to replay them, keep the older key for as long as they are kept.
    """

    def __init__(self, database: Database, keys: KeyRing, *, finished: bool = False) -> None:
        if keys.current is None:
            raise EncryptionKeyMissing("EVENTS_ENCRYPTION_KEYS is not set: there is nothing to use")
        self._database = database
        self._keys = keys
        self._wanted = {"current": keys.current, "finished": finished}
        self._unreadable: list[UUID] = []

    async def run(self) -> Rotated:
        """Go through all of the outbox.

        Raises EncryptionKeyMissing for a key that is not here, DecryptionFailed where nearly
        nothing decrypts.
        """
        sealed = left = 0
        for _ in range(_ROUNDS):
            sealed += await self._walk()
            rows = await self._database.fetch(
                SQL["left_over"], {**self._wanted, "unreadable": self._unreadable}
            )
            if not (left := rows[0][0]):
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        return Rotated(sealed, left, tuple(self._unreadable))

    async def _walk(self) -> int:
        sealed, after = 0, None
        while ends := await self._database.fetch(SQL["page_end"], {"after": after, "scan": SCAN}):
            last: UUID = ends[0][0]
            while (found := await self._seal_some(after, last)) is not None:
                sealed += found
            after = last
        return sealed

    async def _seal_some(self, after: UUID | None, last: UUID) -> int | None:
        """How many were sealed; None where there was nothing to seal."""
        async with self._database.transaction() as tx:
            rows = await (
                await tx.execute(
                    SQL["sealed_otherwise"],
                    {
                        **self._wanted,
                        "after": after,
                        "last": last,
                        "limit": BATCH,
                        "unreadable": self._unreadable,
                    },
                )
            ).fetchall()
            fresh: dict[UUID, bytes] = {}
            for event_id, topic, key, payload in rows:
                try:
                    opened = self._keys.open(
                        Sealed(key, bytes(payload)), event_id=event_id, topic=topic
                    )
                except DecryptionFailed:
                    if len(self._unreadable) == UNREADABLE:
                        raise
                    self._unreadable.append(event_id)
                    continue
                fresh[event_id] = self._keys.seal(opened, event_id=event_id, topic=topic).payload
            if fresh:
                await tx.execute(
                    SQL["seal_anew"],
                    {
                        "current": self._wanted["current"],
                        "ids": list(fresh),
                        "payloads": list(fresh.values()),
                    },
                )
        return len(fresh) if rows else None
