"""Events to Kafka: a real one where Java and Maven are, librdkafka's mock cluster elsewhere."""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import replace
from typing import Any

import pytest

from allim.base.errors import ConfigurationError
from allim.database.pool import Database
from allim.events.publishers.kafka import KafkaPublisher
from allim.events.publishers.kafka_client import LibraryLog
from allim.events.publishers.kafka_topics import MISSED_KEPT, YOUNG_SECONDS, Topics
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.message import Line
from allim.relay.ordered.publisher import DELIVERED
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.testing.clock import HandClock
from allim.testing.kafka import kafka_node
from tests.events.kafka.conftest import Brokers, event_id, first_by_key, headers_of
from tests.events.kafka.mock_cluster import mock_cluster
from tests.events.relay.conftest import Outbox, relaying
from tests.requirements import MUST_ALL_RUN

UNKNOWN_TOPIC_OR_PARTITION = 3
NOT_ENOUGH_REPLICAS = 19
KEYS = [f"k{number}" for number in range(20)]


def events(each: int, start: int = 0) -> list[tuple[str | None, str]]:
    return [(key, f"{number:05}") for number in range(start, start + each) for key in KEYS]


def message(topic: str, key: str | None, payload: bytes, number: int = 1) -> OutboxMessage:
    line = None if key is None else Line(1, topic, key)
    return OutboxMessage(
        1, number, line, f"id-{number}", topic, key, payload, {}, None, None, 0.0, 0, 0
    )


@pytest.mark.skipif(not MUST_ALL_RUN, reason="what CI must hold to")
def test_where_java_is_the_suite_runs_on_a_real_kafka(kafka: Brokers) -> None:
    assert kafka.node is not None or shutil.which("java") is None


async def test_events_arrive_in_order_with_key_payload_and_headers(
    database: Database, outbox: Outbox, kafka: Brokers, topic: str
) -> None:
    kafka.create(topic)
    publisher = kafka.publisher()
    await outbox.put(*events(30), topic=topic)
    await database.fetch(
        "UPDATE outbox_messages SET content_type = 'application/json', headers ="
        """ '{"eventType": "OrderPlaced", "aggregateId": "김", "traceparent": "00-1"}'"""
        " RETURNING 1"
    )
    async with relaying(database, publisher, batch_max=1000):
        rows = await outbox.until_all_are("SENT")
    came = await kafka.consume(topic, len(rows))
    assert {event_id(each) for each in came} == {str(row["id"]) for row in rows}
    assert len(came) == len(rows) == 600, "once each"
    assert first_by_key(came) == {key: [f"{number:05}" for number in range(30)] for key in KEYS}
    assert headers_of(came[0]) == {
        "eventType": "OrderPlaced",
        "aggregateId": "김",
        "traceparent": "00-1",
        "eventId": event_id(came[0]),
        "content-type": "application/json",
    }
    partitions = {(each.key(), each.partition()) for each in came}
    assert len(partitions) == len(KEYS), "a key has one partition"
    await publisher.close()


async def test_a_message_without_a_key_arrives_without_one(kafka: Brokers, topic: str) -> None:
    kafka.create(topic)
    publisher = kafka.publisher()
    outcomes = await publisher.publish([message(topic, None, b"free")], lambda: True)
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.DELIVERED]
    (came,) = await kafka.consume(topic, 1)
    assert (came.key(), came.value()) == (None, b"free")
    await publisher.close()


async def test_nothing_is_handed_over_once_the_lease_may_have_run_out(
    kafka: Brokers, topic: str
) -> None:
    kafka.create(topic)
    publisher = kafka.publisher()
    asked = iter([True, True, False])
    batch = [message(topic, "a", b"%d" % number, number) for number in range(5)]
    outcomes = await publisher.publish(batch, lambda: next(asked))
    assert [o.kind for o in outcomes] == [OutcomeKind.DELIVERED] * 2 + [OutcomeKind.RELEASED] * 3
    assert len(await kafka.consume(topic, 2)) == 2
    await publisher.close()


async def test_a_message_over_the_limit_is_refused_and_stops_its_line(
    kafka: Brokers, topic: str
) -> None:
    kafka.create(topic)
    publisher = kafka.publisher(KAFKA_EXTRA_MESSAGE_MAX_BYTES="2000")
    large = b"x" * 3000
    batch = [
        message(topic, "a", b"1", 1),
        message(topic, "a", large, 2),
        message(topic, "a", b"3", 3),
        message(topic, "b", b"4", 4),
    ]
    outcomes = await publisher.publish(batch, lambda: True)
    kinds = [outcome.kind for outcome in outcomes]
    assert kinds == [
        OutcomeKind.DELIVERED, OutcomeKind.REFUSED, OutcomeKind.RELEASED, OutcomeKind.DELIVERED
    ]  # fmt: skip
    assert outcomes[1].code == "too_large"
    await publisher.close()


async def test_a_message_that_the_broker_finds_too_large_takes_nobody_with_it(
    database: Database, outbox: Outbox, real_kafka: Brokers, topic: str
) -> None:
    real_kafka.create(topic, partitions=1, max_message_bytes="20000")
    publisher = real_kafka.publisher(KAFKA_COMPRESSION_TYPE="none", KAFKA_BATCH_SIZE="100000")
    large = "x" * 30_000
    await outbox.put(("a", "a1"), ("b", "b1"), ("a", large), ("c", "c1"), ("a", "a3"), topic=topic)
    async with relaying(database, publisher):
        rows = await outbox.until_all_are("SENT", "DEAD")
    assert [row["status"] for row in rows] == ["SENT", "SENT", "DEAD", "SENT", "SENT"]
    assert rows[2]["error_message"].startswith("too_large: ")
    assert [row["retry_count"] for row in rows] == [0] * 5
    came = await real_kafka.consume(topic, 4)
    assert first_by_key(came) == {"a": ["a1", "a3"], "b": ["b1"], "c": ["c1"]}
    await publisher.close()


async def test_a_topic_that_is_missing_stops_nobody_else(
    database: Database, outbox: Outbox, real_kafka: Brokers, topic: str
) -> None:
    real_kafka.create(topic)
    late = f"{topic}-late"
    publisher = real_kafka.publisher()
    publisher._topics = Topics(patience=1.0)
    await outbox.put(*events(3), topic=late)
    await outbox.put(*events(3), topic=topic)
    async with relaying(database, publisher, retry_after=0.5, max_retries=1000):
        rows = await outbox.until(
            lambda rows: (
                all(row["status"] == "SENT" for row in rows if row["topic"] == topic)
                and all(row["parked"] for row in rows if row["topic"] == late)
            )
        )
        failed = [row for row in rows if row["status"] == "FAILED"]
        assert {row["error_message"].split(":")[0] for row in failed} == {"unknown_topic"}
        # At first it might have been about to be there; then each try counts.
        await outbox.until(
            lambda rows: any(row["retry_count"] for row in rows if row["topic"] == late)
        )
        real_kafka.create(late)
        await outbox.until_all_are("SENT")
    expected = {key: [f"{number:05}" for number in range(3)] for key in KEYS}
    assert first_by_key(await real_kafka.consume(late, 60)) == expected
    await publisher.close()


async def test_a_topic_that_the_brokers_make_when_asked_costs_no_retry(
    database: Database, outbox: Outbox, real_kafka: Brokers, topic: str
) -> None:
    with kafka_node(auto_create_topics_enable="true") as node:
        brokers = Brokers(node.servers, node)
        publisher = brokers.publisher()
        await outbox.put(*events(3), topic=topic)
        async with relaying(database, publisher, retry_after=3600.0):
            rows = await outbox.until_all_are("SENT")
        assert {row["retry_count"] for row in rows} == {0}
        came = await brokers.consume(topic, 60)
        await publisher.close()
    assert first_by_key(came) == {key: [f"{number:05}" for number in range(3)] for key in KEYS}


async def test_a_topic_that_is_not_there_yet_is_asked_for_again_and_costs_nothing(
    topic: str,
) -> None:
    batch = [message(topic, "a", b"1", 1), message(topic, "a", b"2", 2)]
    with mock_cluster() as cluster:
        publisher, clock = Brokers(cluster.servers).publisher(), HandClock()
        publisher._topics = Topics(clock=clock)
        cluster.answer_for(topic, UNKNOWN_TOPIC_OR_PARTITION)
        told = [await publisher.publish(batch, lambda: True)]
        clock.turn(4.9)
        told.append(await publisher.publish(batch, lambda: True))
        clock.turn(0.1)
        told.append(await publisher.publish(batch, lambda: True))
        cluster.answer_for(topic, 0)
        told.append(await publisher.publish(batch, lambda: True))
        came = await Brokers(cluster.servers).consume(topic, 2)
        await publisher.close()
    heads = [(head.kind, head.code, head.retry_after) for head, _ in told]
    not_yet = (OutcomeKind.SNOOZED, "unknown_topic", 0.5)
    missing = (OutcomeKind.RETRY, "unknown_topic", None)
    assert heads == [not_yet, not_yet, missing, (OutcomeKind.DELIVERED, None, None)]
    assert [follower.kind for _, follower in told] == [OutcomeKind.RELEASED] * 3 + [
        OutcomeKind.DELIVERED
    ]
    assert [each.value() for each in came] == [b"1", b"2"]


async def test_what_goes_to_a_topic_that_has_just_been_made_goes_one_by_one(
    topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A broker that refused the first of several requests, not being ready, would take the second,
    # and the first, when it is repeated, for a repeat of what it has.
    handed: list[int] = []
    hand_over = KafkaPublisher._hand_over

    async def counted(self: KafkaPublisher, *given: Any, **named: Any) -> list[Outcome]:
        outcomes = await hand_over(self, *given, **named)
        handed.append(sum(outcome is DELIVERED for outcome in outcomes))
        return outcomes

    monkeypatch.setattr(KafkaPublisher, "_hand_over", counted)
    made = [message(topic, f"k{number}", b"1", number) for number in range(4)]
    old = [message(f"{topic}-old", f"k{number}", b"1", number) for number in range(3)]
    with mock_cluster() as cluster:
        publisher, clock = Brokers(cluster.servers).publisher(), HandClock()
        publisher._topics = Topics(clock=clock)
        cluster.answer_for(topic, UNKNOWN_TOPIC_OR_PARTITION)
        await publisher.publish(made, lambda: True)
        cluster.answer_for(topic, 0)
        handed.clear()
        outcomes = await publisher.publish([*made, *old], lambda: True)
        assert (handed, {*outcomes}) == ([3, 1, 1, 1, 1], {DELIVERED})
        clock.turn(YOUNG_SECONDS)
        handed.clear()
        await publisher.publish([*made, *old], lambda: True)
        assert handed == [7]
        await publisher.close()


def test_a_topic_that_comes_and_goes_is_given_its_seconds_again() -> None:
    clock = HandClock()
    topics = Topics(clock=clock)
    assert topics.missing("orders", "unknown").kind is OutcomeKind.SNOOZED
    clock.turn(60.0)
    assert topics.missing("orders", "unknown").kind is OutcomeKind.RETRY
    topics.found("orders")
    assert not topics.unknown(["orders"])
    assert topics.missing("orders", "unknown").kind is OutcomeKind.SNOOZED
    assert topics.unknown(["orders"]) == ["orders"]
    for number in range(2 * MISSED_KEPT):
        topics.missing(f"t{number}", "unknown")
    assert len(topics._missing_since) == MISSED_KEPT


async def test_a_broker_that_restarts_in_mid_flow_loses_and_reorders_nothing(
    database: Database, outbox: Outbox, real_kafka: Brokers, topic: str
) -> None:
    node = real_kafka.node
    assert node is not None
    real_kafka.create(topic)
    publisher = real_kafka.publisher()
    async with relaying(database, publisher, batch_max=200):
        for round_ in range(6):
            await outbox.put(*events(50, round_ * 50), topic=topic)
            if round_ in (1, 3):
                await asyncio.to_thread(node.stop, kill=round_ == 3)
                await outbox.put(*events(0), topic=topic)
                await asyncio.to_thread(node.start)
        rows = await outbox.until_all_are("SENT")
    assert {row["retry_count"] for row in rows} == {0}
    came = await real_kafka.consume(topic, len(rows))
    assert first_by_key(came) == {key: [f"{number:05}" for number in range(300)] for key in KEYS}
    await publisher.close()


async def test_a_broker_that_is_down_costs_no_retries(
    database: Database, outbox: Outbox, real_kafka: Brokers, topic: str
) -> None:
    node = real_kafka.node
    assert node is not None
    real_kafka.create(topic)
    # The producer is given up while the broker is away, and the next one begins with the head.
    publisher = real_kafka.publisher(KAFKA_DELIVERY_TIMEOUT_MS="1000", KAFKA_MAX_BLOCK_MS="1000")
    await outbox.put(*events(1), topic=topic)
    async with relaying(database, publisher):
        await outbox.until_all_are("SENT")
        first = publisher._client
        await asyncio.to_thread(node.stop)
        await outbox.put(*events(5, 1), topic=topic)
        async with asyncio.timeout(60):
            while publisher._client is first:
                await asyncio.sleep(0.05)
        waiting = {(r["status"], r["retry_count"], r["parked"]) for r in await outbox.rows()}
        assert waiting == {("SENT", 0, False), ("PENDING", 0, False)}
        await asyncio.to_thread(node.start)
        rows = await outbox.until_all_are("SENT")
    assert {row["retry_count"] for row in rows} == {0}
    came = await real_kafka.consume(topic, len(rows))
    assert first_by_key(came) == {key: [f"{number:05}" for number in range(6)] for key in KEYS}
    await publisher.close()


async def test_a_full_buffer_is_waited_for(kafka: Brokers, topic: str) -> None:
    kafka.create(topic)
    publisher = kafka.publisher(KAFKA_EXTRA_QUEUE_BUFFERING_MAX_MESSAGES="10")
    batch = [message(topic, f"k{number}", b"x", number) for number in range(500)]
    outcomes = await publisher.publish(batch, lambda: True)
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.DELIVERED}
    await publisher.close()


async def test_after_a_purge_the_same_publisher_goes_on(kafka: Brokers, topic: str) -> None:
    kafka.create(topic)
    publisher = kafka.publisher()
    batch = [message(topic, "a", b"1")]
    assert (await publisher.publish(batch, lambda: True))[0].kind is OutcomeKind.DELIVERED
    await publisher.purge()
    again = [replace(batch[0], seq=2)]
    assert (await publisher.publish(again, lambda: True))[0].kind is OutcomeKind.DELIVERED
    await publisher.close()


async def test_nobody_answering_is_told_by_the_doctor_and_is_no_fault_of_a_message() -> None:
    publisher = Brokers("127.0.0.1:1").publisher(KAFKA_MAX_BLOCK_MS="300")
    outcomes = await publisher.publish([message("orders", "a", b"1")], lambda: True)
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.FAULT]
    assert outcomes[0].code == "broker_unavailable"
    await publisher.close()


async def test_the_doctor_finds_the_brokers(kafka: Brokers) -> None:
    publisher = kafka.publisher()
    assert await publisher.diagnose() is None
    await publisher.close()


def test_an_option_that_librdkafka_has_not_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"no\.such\.option"):
        Brokers("x:1").publisher(KAFKA_EXTRA_NO_SUCH_OPTION="1")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("MESSAGE_TIMEOUT_MS", "set KAFKA_DELIVERY_TIMEOUT_MS instead"),
        ("TRANSACTIONAL_ID", "set KAFKA_TRANSACTIONAL instead"),
        ("ENABLE_IDEMPOTENCE", "the order of events hangs on it"),
        ("ENABLE_GAPLESS_GUARANTEE", "the order of events hangs on it"),
    ],
)
def test_an_option_that_would_break_the_order_is_refused_at_the_start(
    option: str, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"KAFKA_EXTRA_{option}: {words}"):
        Brokers("x:1").publisher(**{f"KAFKA_EXTRA_{option}": "1"})


def test_transactions_are_configured_so_that_no_message_times_out_alone() -> None:
    publisher = Brokers("x:1").publisher(
        KAFKA_TRANSACTIONAL="true", KAFKA_DELIVERY_TIMEOUT_MS="2000000"
    )
    assert publisher._configuration["transaction.timeout.ms"] == 900_000
    assert "message.timeout.ms" not in publisher._configuration


def test_a_broker_that_is_down_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    library = LibraryLog()
    for _ in range(100):
        library.log(logging.ERROR, "%s [%s] %s", "FAIL", "allim#producer-1", "refused")
    library.log(logging.ERROR, "%s [%s] %s", "FATAL", "allim#producer-1", "the end")
    assert [record.getMessage() for record in caplog.records] == [
        "FAIL [allim#producer-1] refused",
        "FATAL [allim#producer-1] the end",
    ]


async def test_a_producer_that_gave_a_request_up_is_built_anew(topic: str) -> None:
    with mock_cluster() as cluster:
        publisher = Brokers(cluster.servers).publisher(KAFKA_RETRIES="1")
        batch = [message(topic, "a", b"%d" % number, number) for number in range(3)]
        assert {o.kind for o in await publisher.publish(batch, lambda: True)} == {
            OutcomeKind.DELIVERED
        }
        first = publisher._client
        cluster.refuse_produce(NOT_ENOUGH_REPLICAS, 10)
        outcomes = await publisher.publish(batch, lambda: True)
        assert {(o.kind, o.code) for o in outcomes} == {(OutcomeKind.FAULT, "broker_failed")}
        cluster.refuse_nothing()
        outcomes = await publisher.publish(batch, lambda: True)
        assert {o.kind for o in outcomes} == {OutcomeKind.DELIVERED}
        assert publisher._client is not first
        await publisher.close()


def test_options_reach_librdkafka(kafka: Brokers) -> None:
    publisher: KafkaPublisher = kafka.publisher(
        KAFKA_BUFFER_MEMORY="67108864", KAFKA_EXTRA_SASL_MECHANISM="PLAIN"
    )
    configuration = publisher._configuration
    assert configuration["queue.buffering.max.kbytes"] == 65536
    assert configuration["sasl.mechanism"] == "PLAIN"
    assert configuration["enable.idempotence"] is True
    assert configuration["message.timeout.ms"] == 0
