"""Key rotation: payloads that an older key has sealed are sealed anew with the current one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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
"""Payloads that do not decrypt, before there is more wrong than a few rows."""
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
        sealed, left = await self._walk()
        for _ in range(_ROUNDS):
            if not left:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
            again, left = await self._seal(left)
            sealed += again
        return Rotated(sealed, len(left), tuple(self._unreadable))

    async def _walk(self) -> tuple[int, Sequence[UUID]]:
        """How many were sealed, and which were in use."""
        sealed, left, after = 0, list[UUID](), None
        while ends := await self._database.fetch(SQL["page_end"], {"after": after, "scan": SCAN}):
            last: UUID = ends[0][0]
            rows = await self._database.fetch(
                SQL["sealed_otherwise"], {**self._wanted, "after": after, "last": last}
            )
            of_page, left_of_page = await self._seal([row[0] for row in rows])
            sealed += of_page
            left += left_of_page
            after = last
        return sealed, left

    async def _seal(self, ids: Sequence[UUID]) -> tuple[int, Sequence[UUID]]:
        """How many of these were sealed, and which still are to be."""
        sealed, passed_over = 0, list[UUID]()
        for start in range(0, len(ids), BATCH):
            some = ids[start : start + BATCH]
            fresh = await self._seal_batch(some)
            sealed += len(fresh)
            passed_over += [each for each in some if each not in fresh]
        if not passed_over:
            return sealed, []
        rows = await self._database.fetch(
            SQL["still_sealed_otherwise"], {**self._wanted, "ids": passed_over}
        )
        return sealed, [row[0] for row in rows if row[0] not in self._unreadable]

    async def _seal_batch(self, ids: Sequence[UUID]) -> Mapping[UUID, bytes]:
        current = {"current": self._wanted["current"]}
        fresh: dict[UUID, bytes] = {}
        async with self._database.transaction() as tx:
            rows = await (await tx.execute(SQL["lock"], {**current, "ids": list(ids)})).fetchall()
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
                    {**current, "ids": list(fresh), "payloads": list(fresh.values())},
                )
        return fresh
