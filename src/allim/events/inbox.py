"""The inbox of a consumer: whether an event was taken in before.

Brokers deliver some messages twice. A consumer that notes each event id in the transaction
of what it does with the event does it once: exactly once in effect.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import TYPE_CHECKING, overload
from uuid import UUID

from pydantic_core import to_json

from allim.database.statements import Statements
from allim.database.transactions import Ask, Conversation
from allim.events.callers import within
from allim.events.errors import MessageProcessingFailed

if TYPE_CHECKING:
    from allim.events.callers import AsyncTransaction, SyncTransaction, Transaction

SQL = Statements.load("allim.events", "inbox.sql")

CONSUMER_LIMIT = 200
"""Characters of a consumer's name."""
FORGET_BATCH = 10_000


class Inbox:
    """What one consumer has taken in. Consumers of different names know nothing of each other."""

    def __init__(self, consumer: str) -> None:
        if not 0 < len(consumer) <= CONSUMER_LIMIT or not consumer.isprintable():
            raise ValueError(f"a consumer's name has 1 to {CONSUMER_LIMIT} printable characters")
        self.consumer = consumer

    @overload
    def once(self, tx: SyncTransaction, event_id: UUID | str | bytes) -> bool: ...
    @overload
    def once(self, tx: AsyncTransaction, event_id: UUID | str | bytes) -> Awaitable[bool]: ...

    def once(self, tx: Transaction, event_id: UUID | str | bytes) -> bool | Awaitable[bool]:
        """Note an event in the transaction `tx`; whether this is the first time.

        False: it was taken in before, so do nothing. Where another transaction notes the same
        event just now, this waits for its end: if that rolls back, this is the first time.

        `tx` is as for `publish`; `event_id` as it stands in the header ``eventId``. Raises
        MessageProcessingFailed for what is no event id, MessageSaveFailed and its kinds.
        """
        entry = to_json({"consumer": self.consumer, "event_id": _event_id(event_id)}).decode()
        return within(tx, lambda: _once(entry))

    @overload
    def forget(self, tx: SyncTransaction, older_than: timedelta) -> int: ...
    @overload
    def forget(self, tx: AsyncTransaction, older_than: timedelta) -> Awaitable[int]: ...

    def forget(self, tx: Transaction, older_than: timedelta) -> int | Awaitable[int]:
        """Forget up to 10,000 events that were noted longer ago than that; how many it were.

        Keep them for longer than a broker may repeat, or an operator replay, an event.
        """
        wanted = to_json(
            {
                "consumer": self.consumer,
                "seconds": older_than.total_seconds(),
                "most": FORGET_BATCH,
            }
        ).decode()
        return within(tx, lambda: _forget(wanted))


def _once(entry: str) -> Conversation[bool]:
    rows = yield Ask(SQL["note"], entry)
    return len(rows) == 1


def _forget(wanted: str) -> Conversation[int]:
    rows = yield Ask(SQL["forget"], wanted)
    forgotten: int = rows[0][0]
    return forgotten


def _event_id(given: UUID | str | bytes) -> UUID:
    if isinstance(given, UUID):
        return given
    try:
        return UUID(given.decode() if isinstance(given, bytes) else given)
    except (ValueError, AttributeError, TypeError):
        raise MessageProcessingFailed(f"{given!r} is no event id: it must be a UUID") from None
