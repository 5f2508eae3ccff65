"""Publishing: events become rows of the outbox, in the caller's own transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, overload

from pydantic_core import to_json

from allim.database.statements import Statements
from allim.database.transactions import Ask, Conversation
from allim.database.waking import EVENTS, wake_after_commit
from allim.events.callers import within
from allim.events.encryption import Encryption
from allim.events.event import Event
from allim.events.message import Message, prepare

if TYPE_CHECKING:
    from allim.events.callers import AsyncTransaction, SyncTransaction, Transaction

SQL = Statements.load("allim.events", "publishing.sql")

BATCH = 1000
"""The most messages of one statement."""
BATCH_BYTES = 4 * 1024 * 1024
"""The most payload of one statement, unless it is of one message alone."""


class Publisher:
    """Publishes with settings of its own; `publish` does so with the process's."""

    def __init__(self, encryption: Encryption) -> None:
        self._encryption = encryption

    @overload
    def publish(self, tx: SyncTransaction, *events: Event, serialize: bool = False) -> int: ...
    @overload
    def publish(
        self, tx: AsyncTransaction, *events: Event, serialize: bool = False
    ) -> Awaitable[int]: ...

    def publish(
        self, tx: Transaction, *events: Event, serialize: bool = False
    ) -> int | Awaitable[int]:
        """As `allim.events.publish`."""
        messages = prepare(events, self._encryption)
        wake_after_commit(tx, (EVENTS,))
        return within(tx, lambda: store(messages, serialize=serialize))


@overload
def publish(tx: SyncTransaction, *events: Event, serialize: bool = False) -> int: ...
@overload
def publish(tx: AsyncTransaction, *events: Event, serialize: bool = False) -> Awaitable[int]: ...


def publish(tx: Transaction, *events: Event, serialize: bool = False) -> int | Awaitable[int]:
    """Publish events in the transaction `tx`: they leave if it commits, and only then.

    `tx` is a SQLAlchemy Session, scoped_session or Connection, a psycopg connection, or Django's
    connection within `atomic()`; or one of the async kinds (SQLAlchemy's, psycopg's,
    asyncpg's), for which the answer must be awaited. A session is flushed first; nothing is
    ever committed. Any number of events goes in one round trip for each thousand.

    Messages of one key leave in the order in which their transactions came by, which is only
    defined where something made one wait for the other: lock or write the aggregate before you
    publish, or say `serialize=True`, which takes an advisory lock for each key until the
    transaction ends.

    Returns how many were stored: an event id that is in the outbox already is passed over.

    Raises MessageSerializationFailed and its kinds before anything is said to the database,
    and MessageSaveFailed and its kinds (`allim.events.errors`). After a MessageSaveFailed whose
    `sqlstate` is set, PostgreSQL has ended the transaction: roll back, to the savepoint at
    least.
    """
    return publisher_of_this_process().publish(tx, *events, serialize=serialize)


@cache
def publisher_of_this_process() -> Publisher:
    """The publisher that the process's environment and `.env` make. Raises ConfigurationError."""
    from allim.base.settings import Environment

    return Publisher(Encryption.of(Environment.of_process()))


def store(messages: Sequence[Message], *, serialize: bool = False) -> Conversation[int]:
    """Store messages in their order; how many were new."""
    if serialize and (locks := sorted({lock_of(m.key) for m in messages if m.key is not None})):
        yield Ask(SQL["lock_keys"], to_json(locks).decode())
    stored = 0
    for batch in _batches(messages):
        rows = yield Ask(SQL["store"], batch)
        stored += rows[0][0]
    return stored


def lock_of(key: str) -> int:
    """The number of the advisory lock that stands for a key."""
    return int.from_bytes(sha256(b"allim.events:" + key.encode()).digest()[:8], "big", signed=True)


def _batches(messages: Iterable[Message]) -> Iterator[str]:
    batch: list[dict[str, Any]] = []
    size = 0
    for message in messages:
        if batch and (len(batch) == BATCH or size + len(message.payload) > BATCH_BYTES):
            yield to_json(batch).decode()
            batch, size = [], 0
        size += len(message.payload)
        batch.append(
            {
                "i": message.id.hex,
                "p": message.payload.hex(),
                "t": message.topic,
                "k": message.key,
                "s": message.slot,
                "h": message.headers,
                "c": message.content_type,
                "e": message.encryption_key,
            }
        )
    if batch:
        yield to_json(batch).decode()
