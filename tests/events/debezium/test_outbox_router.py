"""Debezium's outbox event router, set up as its page says, publishes what our relay would."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psycopg

from allim.database.pool import Database
from allim.events import RawEvent
from allim.events.publishers.headers import headers_of
from allim.events.publishing import Publisher
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.publisher import DELIVERED, MaySend
from allim.relay.outcomes import Outcome
from tests.events.debezium.conftest import Source
from tests.events.debezium.connector import PATIENCE_SECONDS, Record, connector
from tests.events.producer.conftest import user_created
from tests.events.relay.conftest import World, relaying

HEARTBEATS = "__debezium-heartbeat."

Told = tuple[str, bytes | None, bytes | None, Mapping[str, str]]
"""What a consumer gets: topic, key, value, headers."""


class Broker(World):
    """Takes everything, whatever its bytes are."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        self.came.extend(batch)
        return [DELIVERED] * len(batch)


def event(key: str | None, payload: str | bytes, **headers: str) -> RawEvent:
    body = payload.encode() if isinstance(payload, str) else payload
    return RawEvent(topic="orders", key=key, payload=body, headers=headers)


def events_among(records: Iterable[Record]) -> list[Record]:
    """Without the connector's heartbeats."""
    return [record for record in records if not record.topic.startswith(HEARTBEATS)]


def as_a_relay_tells(record: Record) -> Told:
    """A record with its headers spread: those of the producer come as one."""
    headers = {name: (value or b"").decode() for name, value in record.headers.items()}
    assert headers.pop("id") == headers["eventId"]
    spread = {**json.loads(headers.pop("headers")), **headers}
    return record.topic, record.key, record.value, spread


def by_line(told: Iterable[Told]) -> Mapping[tuple[str, bytes | None], list[str]]:
    """The ids of each key, in the order they came."""
    found: dict[tuple[str, bytes | None], list[str]] = defaultdict(list)
    for topic, key, _, headers in told:
        if key is not None:
            found[topic, key].append(headers["eventId"])
    return found


async def until_all_are_sent(database: Database) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await database.fetch("SELECT 1 FROM outbox_messages WHERE status <> 'SENT' LIMIT 1"):
            await asyncio.sleep(0.05)


async def test_debezium_publishes_what_a_relay_would_and_nothing_that_a_relay_does(
    source: Source, publisher: Publisher, tmp_path: Path
) -> None:
    broker = Broker()
    async with (
        connector(source.settings, tmp_path) as debezium,
        Database(source.url) as database,
    ):
        await debezium.publishes(*source.publish(publisher, event(None, "it runs")))
        source.publish(
            publisher,
            event("k1", "first", tenant="김"),
            event("k1", "second"),
            event(None, b"\x00\xff no key, no text"),
            event("k2", ""),
            event("k2", "long " * 40_000),
            user_created(),
        )
        with (
            psycopg.connect(source.url) as early,
            psycopg.connect(source.url) as late,
            psycopg.connect(source.url) as never,
        ):
            publisher.publish(early, event("k3", "drawn first, committed last"))
            publisher.publish(never, event("k1", "rolled back"))
            publisher.publish(late, event("k4", "drawn last"), event("k1", "third"))
            never.rollback()
            late.commit()
            early.commit()
        for number in range(50):
            source.publish(publisher, *(event(f"n{key}", f"{number}") for key in range(5)))
        async with relaying(database, broker):
            await until_all_are_sent(database)
        await database.fetch("DELETE FROM outbox_messages RETURNING 1")
        (last,) = source.publish(publisher, event(None, "the last"))
        *records, _ = events_among(await debezium.publishes(last))
    debezium_told = [as_a_relay_tells(record) for record in records]
    relay_told: list[Told] = [
        (m.topic, None if m.key is None else m.key.encode(), m.payload, headers_of(m))
        for m in broker.came
    ]

    def identity(told: Told) -> str:
        return told[3]["eventId"]

    assert sorted(debezium_told, key=identity) == sorted(relay_told, key=identity)
    assert by_line(debezium_told) == by_line(relay_told)
    assert len(relay_told) == 260


async def test_debezium_takes_over_where_the_relay_stopped_and_misses_nothing_while_down(
    source: Source, publisher: Publisher, tmp_path: Path
) -> None:
    source.publish(publisher, event("k", "sent by the relay"))
    async with Database(source.url) as database:
        async with relaying(database, Broker()):
            await until_all_are_sent(database)
        waiting = source.publish(publisher, *(event("k", f"waiting {n}") for n in range(3)))
        # Rows lie where they were last changed; the order is that of `seq`.
        await database.fetch(
            "UPDATE outbox_messages SET version = version + 1 WHERE id = %(first)s RETURNING 1",
            {"first": waiting[0]},
        )
        async with connector(source.settings, tmp_path) as debezium:
            came = events_among(await debezium.publishes(waiting[-1]))
        assert [record.event_id for record in came] == waiting
        missed = source.publish(publisher, *(event("k", f"missed {n}") for n in range(3)))
        await database.fetch("DELETE FROM outbox_messages RETURNING 1")
        async with connector(source.settings, tmp_path) as debezium:
            came = events_among(await debezium.publishes(missed[-1]))
        assert [each.event_id for each in came if each.event_id not in waiting] == missed


async def test_the_slot_lets_go_of_the_log_while_no_event_is_published(
    source: Source, publisher: Publisher, tmp_path: Path
) -> None:
    often = {**source.settings, "heartbeat.interval.ms": "100", "status.update.interval.ms": "500"}
    async with (
        connector(often, tmp_path) as debezium,
        Database(source.url) as database,
    ):
        await debezium.publishes(*source.publish(publisher, event(None, "it runs")))
        ((written,),) = await database.fetch(
            "WITH noise AS (INSERT INTO notification (id, source, type)"
            " SELECT gen_random_uuid(), 's', 't' FROM generate_series(1, 1000) RETURNING 1)"
            " SELECT pg_current_wal_insert_lsn()::text FROM (SELECT count(*) FROM noise) AS done"
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (
                await database.fetch(
                    "SELECT 1 FROM pg_replication_slots WHERE confirmed_flush_lsn >="
                    " CAST(CAST(%(written)s AS text) AS pg_lsn)",
                    {"written": written},
                )
            ):
                await asyncio.sleep(0.1)
        assert len(events_among(debezium.records)) == 1
    (late,) = source.publish(publisher, event(None, "while it was down"))
    async with connector(often, tmp_path) as debezium:
        await debezium.publishes(late)
