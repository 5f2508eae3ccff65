"""Decrypting payloads, just before they are published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from allim.events.encryption import KeyRing, Sealed
from allim.events.errors import DecryptionFailed, EncryptionKeyMissing
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.message import Line
from allim.relay.ordered.publisher import NOT_TRIED, MaySend, Publisher
from allim.relay.outcomes import Outcome

KEY_PAUSE_SECONDS = 60.0


class Unsealing:
    """Hands messages to a publisher with their payloads decrypted.

    A key that is missing is the operator's fault: the line waits, and no retry is spent.
    """

    def __init__(self, publisher: Publisher[OutboxMessage], keys: KeyRing) -> None:
        self.name = publisher.name
        self._publisher = publisher
        self._keys = keys

    def begin(self, relay: str) -> None:
        """Publish in the name of this incarnation."""
        self._publisher.begin(relay)

    async def fence(self, relay: str) -> None:
        """Let out nothing of an incarnation that ended."""
        await self._publisher.fence(relay)

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        """Publish what can be decrypted."""
        if not any(message.encryption_key for message in batch):
            return await self._publisher.publish(batch, may_send)
        outcomes: list[Outcome] = [NOT_TRIED] * len(batch)
        opened: list[OutboxMessage] = []
        places: list[int] = []
        stopped: set[Line] = set()
        for place, message in enumerate(batch):
            if message.line in stopped:
                continue
            plain, trouble = self.opened(message)
            if trouble is None:
                opened.append(plain)
                places.append(place)
                continue
            outcomes[place] = trouble
            if message.line is not None:
                stopped.add(message.line)
        if opened:
            answers = await self._publisher.publish(opened, may_send)
            for place, answer in zip(places, answers, strict=True):
                outcomes[place] = answer
        return outcomes

    def opened(self, message: OutboxMessage) -> tuple[OutboxMessage, Outcome | None]:
        """The message with its payload decrypted, or what is to become of it instead."""
        key = message.encryption_key
        if key is None:
            return message, None
        try:
            payload = self._keys.open(
                Sealed(key, message.payload), event_id=UUID(message.id), topic=message.topic
            )
        except EncryptionKeyMissing as error:
            return message, Outcome.snooze("encryption_key_missing", KEY_PAUSE_SECONDS, str(error))
        except DecryptionFailed as error:
            return message, Outcome.refused("decryption_failed", str(error))
        return replace(message, payload=payload, encryption_key=None), None

    async def purge(self) -> None:
        """Let go of nothing more."""
        await self._publisher.purge()

    async def close(self) -> None:
        """Give back what is held."""
        await self._publisher.close()

    async def diagnose(self) -> str | None:
        """What is wrong with it."""
        return await self._publisher.diagnose()
