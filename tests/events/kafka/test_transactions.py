"""KAFKA_TRANSACTIONAL=true: what a relay sends too late, nobody sees. On a real Kafka only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from allim.database.pool import Database
from allim.events.publishers import kafka_transactions
from allim.events.publishers.kafka import KafkaPublisher
from allim.relay.ordered.publisher import Superseded
from allim.relay.outcomes import Outcome, OutcomeKind
from tests.events.kafka.conftest import Brokers, event_id, first_by_key
from tests.events.kafka.test_kafka import KEYS, events, message
from tests.events.relay.conftest import Outbox, relaying

DELIVERED = OutcomeKind.DELIVERED


@asynccontextmanager
async def publisher_of(kafka: Brokers, relay: str, **options: str) -> AsyncIterator[KafkaPublisher]:
    publisher = kafka.publisher(KAFKA_TRANSACTIONAL="true", **options)
    publisher.begin(relay)
    try:
        yield publisher
    finally:
        await publisher.close()


def kinds(outcomes: Sequence[Outcome]) -> list[OutcomeKind]:
    return [outcome.kind for outcome in outcomes]


def values(came: Sequence[Any]) -> list[bytes]:
    return [each.value() for each in came]


def meanwhile(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do something in another thread and loop; this one is frozen until it is done."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


class Frozen:
    """A lease that held when it was asked for; at the n-th asking, much happens before it answers.

    So a process is that is frozen between its look at the lease and what it does next.
    """

    def __init__(self, asking: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._left = asking
        self._work = work

    def __call__(self) -> bool:
        self._left -= 1
        if self._left == 0:
            meanwhile(self._work)
        return True


async def test_a_producer_that_is_not_waited_for_any_more_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_transactions, "OPEN_SECONDS", 1.0)

    def serving() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "allim-kafka"]

    before = serving()
    async with publisher_of(Brokers("127.0.0.1:1"), "one") as publisher:
        publishing = asyncio.create_task(
            publisher.publish([message("orders", "a", b"1")], lambda: True)
        )
        async with asyncio.timeout(60):
            while not (mine := set(serving()) - set(before)):
                await asyncio.sleep(0.001)
        publishing.cancel()
        await asyncio.wait([publishing])
    for thread in mine:
        await asyncio.to_thread(thread.join, 60.0)
        assert not thread.is_alive()


@pytest.mark.parametrize("asking", [2, 3, 5], ids=["before the first", "midway", "before commit"])
async def test_what_a_frozen_relay_sends_after_its_successor_is_seen_by_nobody(
    real_kafka: Brokers, topic: str, asking: int
) -> None:
    real_kafka.create(topic, partitions=1)
    one, two = f"one-{uuid4().hex}", f"two-{uuid4().hex}"
    batch = [message(topic, "a", b"%d" % number, number) for number in range(3)]
    newer = message(topic, "a", b"newer", 9)

    async def successor() -> None:
        async with publisher_of(real_kafka, two) as publisher:
            await publisher.fence(one)
            assert kinds(await publisher.publish(batch, lambda: True)) == [DELIVERED] * 3
            assert kinds(await publisher.publish([newer], lambda: True)) == [DELIVERED]

    async with publisher_of(real_kafka, one) as frozen:
        assert kinds(await frozen.publish([message(topic, "a", b"old", 8)], lambda: True))
        with pytest.raises(Superseded):
            await frozen.publish(batch, Frozen(asking, successor))
        with pytest.raises(Superseded):
            await frozen.publish(batch, lambda: True)
        # Its next life has another name, and may send again.
        frozen.begin(f"again-{uuid4().hex}")
        assert kinds(await frozen.publish([message(topic, "a", b"last", 10)], lambda: True))
    came = await real_kafka.consume(topic, 6)
    assert values(came) == [b"old", b"0", b"1", b"2", b"newer", b"last"]


async def test_a_relay_that_opens_its_own_id_after_it_was_fenced_hands_nothing_over(
    real_kafka: Brokers, topic: str
) -> None:
    real_kafka.create(topic, partitions=1)
    one, two = f"one-{uuid4().hex}", f"two-{uuid4().hex}"
    holds = True

    async def successor() -> None:
        nonlocal holds
        holds = False
        async with publisher_of(real_kafka, two) as publisher:
            await publisher.fence(one)
            await publisher.publish([message(topic, "a", b"new")], lambda: True)

    frozen_once = Frozen(1, successor)
    asked = 0

    def may_send() -> bool:
        nonlocal asked
        asked += 1
        return frozen_once() if asked == 1 else holds

    async with publisher_of(real_kafka, one) as frozen:
        # Nothing is open yet: it is after the first look at the lease that it opens its id.
        outcomes = await frozen.publish([message(topic, "a", b"late")], may_send)
    assert kinds(outcomes) == [OutcomeKind.RELEASED]
    assert values(await real_kafka.consume(topic, 1)) == [b"new"]


async def test_one_message_that_is_refused_takes_the_transaction_back_and_nothing_else(
    database: Database, outbox: Outbox, real_kafka: Brokers, topic: str
) -> None:
    real_kafka.create(topic, partitions=1, max_message_bytes="20000")
    large = "x" * 30_000
    await outbox.put(("a", "a1"), ("b", "b1"), ("a", large), ("c", "c1"), ("a", "a3"), topic=topic)
    options = {"KAFKA_COMPRESSION_TYPE": "none", "KAFKA_BATCH_SIZE": "100000"}
    async with (
        publisher_of(real_kafka, "", **options) as publisher,
        relaying(database, publisher),
    ):
        rows = await outbox.until_all_are("SENT", "DEAD")
    assert [row["status"] for row in rows] == ["SENT", "SENT", "DEAD", "SENT", "SENT"]
    assert [row["retry_count"] for row in rows] == [0] * 5
    came = await real_kafka.consume(topic, 4)
    assert len(came) == 4, "what was taken back is not seen"
    assert first_by_key(came) == {"a": ["a1", "a3"], "b": ["b1"], "c": ["c1"]}


async def test_a_lease_that_runs_out_before_the_commit_takes_the_transaction_back(
    real_kafka: Brokers, topic: str
) -> None:
    real_kafka.create(topic)
    asked = iter([True, True, False])
    async with publisher_of(real_kafka, uuid4().hex) as publisher:
        outcomes = await publisher.publish([message(topic, "a", b"1")], lambda: next(asked))
        assert kinds(outcomes) == [OutcomeKind.RELEASED]
        assert kinds(await publisher.publish([message(topic, "a", b"2")], lambda: True))
    assert values(await real_kafka.consume(topic, 1)) == [b"2"]


async def test_relays_in_transactions_survive_a_broker_that_is_killed(
    database: Database, outbox: Outbox, real_kafka: Brokers, topic: str
) -> None:
    node = real_kafka.node
    assert node is not None
    real_kafka.create(topic)
    async with (
        publisher_of(real_kafka, "") as publisher,
        relaying(database, publisher, batch_max=200),
    ):
        for round_ in range(3):
            await outbox.put(*events(30, round_ * 30), topic=topic)
            if round_ == 1:
                await asyncio.to_thread(node.stop, kill=True)
                await asyncio.to_thread(node.start)
        rows = await outbox.until_all_are("SENT")
    assert {row["retry_count"] for row in rows} == {0}
    came = await real_kafka.consume(topic, len(rows))
    assert first_by_key(came) == {key: [f"{number:05}" for number in range(90)] for key in KEYS}


async def test_a_relay_of_a_lost_lease_goes_on_under_a_new_name_and_the_old_one_is_fenced(
    database: Database, outbox: Outbox, real_kafka: Brokers, topic: str
) -> None:
    real_kafka.create(topic)
    async with publisher_of(real_kafka, "") as publisher, relaying(database, publisher):
        await outbox.put(*events(5), topic=topic)
        await outbox.until_all_are("SENT")
        ((name,),) = await database.fetch(
            "WITH r AS (UPDATE relay SET retired = true RETURNING id), s AS (UPDATE relay_slot"
            " SET relay_id = NULL) SELECT id FROM r"
        )
        await outbox.put(*events(5, 5), topic=topic)
        await outbox.until_all_are("SENT")
        async with asyncio.timeout(60):
            while await database.fetch("SELECT 1 FROM relay WHERE retired AND NOT fenced"):
                await asyncio.sleep(0.05)
    came = await real_kafka.consume(topic, 200)
    assert first_by_key(came) == {key: [f"{number:05}" for number in range(10)] for key in KEYS}
    assert len({event_id(each) for each in came}) == 200
    async with publisher_of(real_kafka, name) as old:
        assert kinds(await old.publish([message(topic, "a", b"1")], lambda: True)) == [DELIVERED]
