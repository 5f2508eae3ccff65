"""A Kafka to publish to: a real one where Java and Maven are, else librdkafka's mock cluster."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from allim.base.settings import Environment
from allim.database.pool import Database
from allim.events.publishers.kafka import KafkaPublisher
from allim.events.publishers.kafka_settings import KafkaOptions
from allim.events.publishers.kafka_transactions import kafka_publisher
from allim.testing.kafka import KafkaNode, kafka_node, missing
from tests.events.relay.conftest import PATIENCE_SECONDS, Outbox


@dataclass(frozen=True)
class Brokers:
    """Where Kafka is, and the node itself if it is a real one."""

    servers: str
    node: KafkaNode | None = None

    def publisher(self, **variables: str) -> KafkaPublisher:
        """A publisher as the settings make it."""
        environment = Environment({"KAFKA_BOOTSTRAP_SERVERS": self.servers, **variables})
        return kafka_publisher(KafkaOptions.of(environment))

    def create(self, topic: str, partitions: int = 4, **options: str) -> None:
        """Create a topic and wait until it is there."""
        admin = AdminClient({"bootstrap.servers": self.servers})
        if self.node is None:
            # The mock cluster creates what it is asked for, and by no other way.
            admin.list_topics(topic, timeout=PATIENCE_SECONDS)
            return
        config = {name.replace("_", "."): value for name, value in options.items()}
        new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config)
        admin.create_topics([new])[topic].result(PATIENCE_SECONDS)

    async def consume(self, topic: str, events: int) -> Sequence[Message]:
        """What stands in a topic: all of it, and at least so many different events."""
        return await asyncio.to_thread(self._consume, topic, events)

    def _consume(self, topic: str, events: int) -> Sequence[Message]:
        # The first is librdkafka's own default, said out loud: what was aborted is not there.
        options = {"isolation.level": "read_committed", "enable.partition.eof": True}
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": uuid4().hex, **options})
        found: list[Message] = []
        unread: set[int] = set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            partitions = consumer.list_topics(topic, 30).topics[topic].partitions
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            unread.update(partitions)
            while unread or len({event_id(message) for message in found}) < events:
                assert time.monotonic() < deadline, _what_came(consumer, topic, partitions, found)
                for message in consumer.consume(500, 0.3):
                    error = message.error()
                    if error is None:
                        found.append(message)
                    else:
                        assert error.name() == "_PARTITION_EOF", error
                        unread.discard(message.partition())
        finally:
            consumer.close()
        return found


def _what_came(
    consumer: Consumer, topic: str, partitions: Iterable[int], found: Sequence[Message]
) -> str:
    """What was read of each partition, beside what the broker says is in it."""
    read = Counter(message.partition() for message in found)
    ends = {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), 10)
        for number in partitions
    }
    unique = len({event_id(message) for message in found})
    return f"{len(found)} messages came, {unique} of them different: {dict(read)} of {ends}"


def headers_of(message: Message) -> Mapping[str, str]:
    """The headers of a record, as text."""
    found = message.headers() or []
    pairs = found.items() if isinstance(found, dict) else found
    return {name: (value or b"").decode() for name, value in pairs if not isinstance(value, str)}


def event_id(message: Message) -> str:
    """The header by which consumers drop repeats."""
    return headers_of(message)["eventId"]


def first_by_key(messages: Sequence[Message]) -> Mapping[str, list[str]]:
    """What a consumer sees that drops the ids it has seen: values by key."""
    seen: set[str] = set()
    found: dict[str, list[str]] = defaultdict(list)
    for message in messages:
        if event_id(message) not in seen:
            seen.add(event_id(message))
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            assert isinstance(value, bytes)
            found[key.decode()].append(value.decode())
    return found


@pytest.fixture(scope="session")
def kafka() -> Iterator[Brokers]:
    """A real Kafka, or the mock cluster where this machine cannot run one."""
    reason = missing()
    if reason is None:
        with kafka_node() as node:
            yield Brokers(node.servers, node)
        return
    cluster = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 3})
    brokers = cluster.list_topics(timeout=30).brokers.values()
    yield Brokers(",".join(f"{broker.host}:{broker.port}" for broker in brokers))


@pytest.fixture
def real_kafka(kafka: Brokers) -> Brokers:
    """A real Kafka; where there is none the test is skipped, with the reason."""
    if kafka.node is None:
        pytest.skip(f"needs a real Kafka: {missing()}")
    return kafka


@pytest.fixture
def outbox(database: Database) -> Outbox:
    """The outbox of this test's database."""
    return Outbox(database)


@pytest.fixture
def topic() -> str:
    """A topic of this test's own."""
    return f"topic-{uuid4().hex[:12]}"
