"""`publish` against a bare multi-row insert of the same columns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import psycopg

from allim.base.ids import uuid7
from allim.bench.figures import Figure, at_least, plain
from allim.bench.stage import Stage
from allim.events import DomainEvent
from allim.events.encryption import Encryption, KeyRing
from allim.events.publishing import Publisher

CASE = "publish"
BATCH = 100
WANTED = 0.7
COLUMNS = "id, payload, topic, message_key, slot, headers, content_type, encryption_key"
BARE = (
    f"INSERT INTO outbox_messages ({COLUMNS}) VALUES "  # noqa: S608
    + ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s)"] * BATCH)
)
PAYLOAD_BYTES = 300

Connection = psycopg.Connection[tuple[Any, ...]]


class UserCreated(DomainEvent):
    """An event whose payload has about 300 bytes."""

    topic = "user-events"
    user_id: UUID
    biography: str


def run(stage: Stage, *, rounds: int = 5, batches: int = 100) -> Iterator[Figure]:
    """Rows a second of both, in turn, one transaction for each hundred; the ratio of medians.

    The bare insert is given rows that are ready; `publish` is given events, which it still has to
    check, serialise and describe in headers.
    """
    publisher = Publisher(Encryption(KeyRing()))
    bare_rates: list[float] = []
    our_rates: list[float] = []

    def publish(connection: Connection, events: Sequence[UserCreated]) -> None:
        publisher.publish(connection, *events)

    def insert(connection: Connection, rows: Sequence[Any]) -> None:
        connection.execute(BARE, rows, prepare=True)

    with psycopg.connect(stage.url, autocommit=True) as connection:
        for number in range(rounds + 1):
            connection.execute("TRUNCATE outbox_messages")
            connection.execute("CHECKPOINT")
            events = [[_event() for _ in range(BATCH)] for _ in range(batches)]
            rows = [[column for _ in range(BATCH) for column in _row()] for _ in range(batches)]
            bare = _rate(connection, insert, rows)
            ours = _rate(connection, publish, events)
            if number:  # the first round warms both up
                bare_rates.append(bare)
                our_rates.append(ours)
        connection.execute("TRUNCATE outbox_messages")
    bare, ours = statistics.median(bare_rates), statistics.median(our_rates)
    yield plain(CASE, f"bare insert of {BATCH} rows a transaction", bare, "rows/s")
    yield plain(CASE, f"publish of {BATCH} events a transaction", ours, "rows/s")
    yield at_least(CASE, "publish to bare insert", ours / bare, "×", WANTED)


def _event() -> UserCreated:
    return UserCreated(user_id=uuid4(), biography="x" * (PAYLOAD_BYTES - 67))


def _row() -> Sequence[Any]:
    event = _event()
    headers = (
        f'{{"eventType":"UserCreated","aggregateType":"user","aggregateId":"{event.user_id}"}}'
    )
    key = str(event.user_id)
    return (uuid7(), event.serialize(), event.topic, key, 7, headers, "application/json", None)


def _rate(
    connection: Connection, store: Callable[[Connection, Any], None], batches: Sequence[Any]
) -> float:
    began = time.perf_counter()
    for batch in batches:
        with connection.transaction():
            store(connection, batch)
    return len(batches) * BATCH / (time.perf_counter() - began)
