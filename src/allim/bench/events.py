"""Relaying events: to nobody, to Kafka, with much waiting or kept, beside a held snapshot."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence

import psycopg
import uvloop

from allim.bench.event_relay import publisher_of
from allim.bench.figures import Figure, at_least, at_most, plain, quantile
from allim.bench.stage import Stage, ask
from allim.database.pool import Database
from allim.database.wakes import Listener, Waker
from allim.events.relaying.box import OutboxBox
from allim.events.relaying.message import OutboxMessage
from allim.events.relaying.operations import OutboxOperator
from allim.relay.ordered.publisher import MaySend, Publisher
from allim.relay.ordered.relay import LANE, OrderedRelay
from allim.relay.ordered.turns import Ways
from allim.relay.outcomes import Outcome
from allim.relay.wake import WakeSignal
from allim.testing.kafka import kafka_node, missing

CASE = "events"
FLAT_CASE = "events-flat"
PER_SECOND = 20
WARM_UP = 20

FILL = """
INSERT INTO outbox_messages (id, topic, message_key, slot, payload, headers, status)
SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7' || lpad(to_hex(number & 4095), 3, '0')
        || '8' || substr(md5(random()::text), 1, 15))::uuid,
       'bench', key, outbox_slot(key), convert_to(repeat('x', 300), 'UTF8'),
       '{"eventType": "OrderPlaced", "aggregateType": "order", "aggregateId": "A-1024"}', %s
  FROM (SELECT 'key-' || (number %% 5000) AS key, number
          FROM generate_series(1, %s) AS number) AS k"""
"""Ids in the order of time, as `publish` makes them."""


def run(stage: Stage, *, events: int = 100_000, seconds: float = 10.0) -> Iterator[Figure]:
    """Rates, the write cost and the delay of one relay process, 300-byte payloads."""
    yield from _written(stage, events)
    fresh = _rate(stage, "null", events)
    yield plain(CASE, "relay to nobody, CPU time", fresh["cpu_microseconds"], "µs/event")
    yield at_least(CASE, "relay to nobody", fresh["rate"], "events/s", 40_000)
    with _snapshot_held(stage, events):
        held = _rate(stage, "null", events, fill=False)
    ratio = fresh["rate"] / held["rate"]
    yield at_most(CASE, "slower while a snapshot is held", ratio, "×", 2.0)
    if reason := missing():
        yield plain(CASE, f"Kafka left out: {reason}", 0.0, "")
        return
    with kafka_node(auto_create_topics_enable="true") as node:
        _rate(stage, node.servers, 1000)
        to_kafka = _rate(stage, node.servers, events)
        yield plain(CASE, "relay to Kafka, CPU time", to_kafka["cpu_microseconds"], "µs/event")
        yield at_least(CASE, "relay to Kafka", to_kafka["rate"], "events/s", 20_000)
        _clear(stage)
        delays = uvloop.run(_delays(stage.url, node.servers, int(seconds * PER_SECOND)))
        yield at_most(
            CASE, "commit to Kafka's acknowledgement, p50", quantile(delays, 0.5), "ms", 10.0
        )
        yield plain(CASE, "commit to Kafka's acknowledgement, p99", quantile(delays, 0.99), "ms")
    _clear(stage)


def run_flat(stage: Stage, *, rows: int = 5_000_000, events: int = 100_000) -> Iterator[Figure]:
    """The same rate with many rows waiting, and with many sent ones kept. Takes some minutes.

    Each is the best of three: whatever else the machine does can only make them slower.
    """
    fresh = max(_rate(stage, "null", events)["rate"] for _ in range(3))
    _clear(stage)
    _fill(stage, rows, "PENDING")
    waiting = max(_rate(stage, "null", events, fill=False)["rate"] for _ in range(3))
    yield at_most(FLAT_CASE, f"slower with {rows:,} waiting", fresh / waiting, "×", 1.2)
    _clear(stage)
    _fill(stage, rows, "SENT")
    kept = max(_rate(stage, "null", events, clear=False)["rate"] for _ in range(3))
    yield at_most(FLAT_CASE, f"slower with {rows:,} sent ones kept", fresh / kept, "×", 1.2)
    _clear(stage)


def _rate(
    stage: Stage, target: str, events: int, *, fill: bool = True, clear: bool = True
) -> dict[str, float]:
    if fill:
        if clear:
            _clear(stage)
        _fill(stage, events, "PENDING")
    with stage.process("allim.bench.event_relay", target) as process:
        return ask(process, str(events))


def _clear(stage: Stage) -> None:
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute("TRUNCATE outbox_messages")
        connection.execute("UPDATE relay SET retired = true")
        connection.execute("UPDATE relay_slot SET relay_id = NULL")
        connection.execute("CHECKPOINT")


def _fill(stage: Stage, rows: int, status: str) -> None:
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute(FILL, [status, rows])
        connection.execute("VACUUM ANALYZE outbox_messages")
        connection.execute("CHECKPOINT")


def _written(stage: Stage, events: int) -> Iterator[Figure]:
    """WAL of a message's whole life: inserted, settled, pruned."""
    _clear(stage)
    marks = []
    with psycopg.connect(stage.url, autocommit=True) as connection:

        def mark() -> None:
            row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
            assert row is not None
            marks.append(float(row[0]))

        mark()
        for _ in range(events // 1000):
            connection.execute(FILL, ["PENDING", 1000])
        mark()
        with stage.process("allim.bench.event_relay", "null") as process:
            ask(process, str(events // 1000 * 1000))
        mark()
        uvloop.run(_prune(stage.url))
        mark()
    count = events // 1000 * 1000
    for name, began, ended in zip(("insert", "settle", "prune"), marks, marks[1:], strict=False):
        yield plain(CASE, f"WAL of the {name}", (ended - began) / count, "bytes/event")
    yield at_most(CASE, "WAL of a whole life", (marks[-1] - marks[0]) / count, "bytes/event", 1229)


async def _prune(url: str) -> None:
    async with Database(url) as database:
        await OutboxOperator(database).prune(0.0)


@contextlib.contextmanager
def _snapshot_held(stage: Stage, events: int) -> Iterator[None]:
    """Another session's snapshot, from before the backlog that is then drained."""
    _clear(stage)
    with psycopg.connect(stage.url, autocommit=True) as other:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM outbox_messages")
        _fill(stage, events, "PENDING")
        yield
        other.execute("ROLLBACK")


class Timed:
    """A publisher that notes when each batch was acknowledged."""

    def __init__(self, publisher: Publisher[OutboxMessage]) -> None:
        self.name = publisher.name
        self._publisher = publisher
        self.acknowledged_at = 0.0
        self.acknowledged = asyncio.Event()

    def begin(self, relay: str) -> None:
        """As it does."""
        self._publisher.begin(relay)

    async def fence(self, relay: str) -> None:
        """As it does."""
        await self._publisher.fence(relay)

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        """Publish, and note the time."""
        outcomes = await self._publisher.publish(batch, may_send)
        self.acknowledged_at = time.perf_counter()
        self.acknowledged.set()
        return outcomes

    async def purge(self) -> None:
        """As it does."""
        await self._publisher.purge()

    async def close(self) -> None:
        """As it does."""
        await self._publisher.close()

    async def diagnose(self) -> str | None:
        """As it does."""
        return await self._publisher.diagnose()


async def _delays(url: str, servers: str, count: int) -> list[float]:
    """Milliseconds from the commit to the acknowledgement, woken by NOTIFY."""
    publisher = Timed(publisher_of(servers))
    signal = WakeSignal()

    def listening(heard: bool) -> None:
        signal.listening = heard

    delays = []
    async with (
        Database(url) as database,
        Waker(database) as waker,
        Listener(database, signal.wake, listening),
    ):
        relay = OrderedRelay(
            OutboxBox(database),
            Ways({publisher.name: publisher}, lambda _topic: publisher.name),
            wake=signal,
        )
        running = asyncio.create_task(relay.run())
        next_at = time.perf_counter()
        for _ in range(count + WARM_UP):
            next_at += 1 / PER_SECOND
            await asyncio.sleep(max(next_at - time.perf_counter(), 0))
            publisher.acknowledged.clear()
            async with database.transaction() as tx:
                await tx.execute(FILL, ["PENDING", 1])
            committed_at = time.perf_counter()
            waker.wake([LANE])
            async with asyncio.timeout(30):
                await publisher.acknowledged.wait()
            delays.append((publisher.acknowledged_at - committed_at) * 1000)
        relay.stop()
        await running
    await publisher.close()
    return delays[WARM_UP:]
