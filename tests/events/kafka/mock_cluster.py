"""librdkafka's mock cluster, told to refuse requests: its Python binding has no word for that."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import files

import pytest
from confluent_kafka import Producer

PRODUCE = 0
"""The number of produce requests in Kafka's protocol."""


class MockCluster:
    """One broker in memory."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
        brokers = self._producer.list_topics(timeout=30).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        library.rd_kafka_handle_mock_cluster.restype = ctypes.c_void_p
        # After the two words with which every Python object begins stands librdkafka's handle.
        handle = ctypes.c_void_p.from_address(
            id(self._producer) + 2 * ctypes.sizeof(ctypes.c_void_p)
        )
        self._cluster = ctypes.c_void_p(library.rd_kafka_handle_mock_cluster(handle))

    def refuse_produce(self, error: int, times: int) -> None:
        """Answer the next requests with an error of Kafka's protocol."""
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster,
            ctypes.c_int16(PRODUCE),
            ctypes.c_size_t(times),
            (ctypes.c_int * times)(*[error] * times),
        )

    def answer_for(self, topic: str, error: int) -> None:
        """Answer so, in Kafka's numbers, whoever asks for a topic; 0 says that it is there."""
        self._library.rd_kafka_mock_topic_set_error(
            self._cluster, ctypes.c_char_p(topic.encode()), ctypes.c_int(error)
        )

    def refuse_nothing(self) -> None:
        """Answer as usual again."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, ctypes.c_int16(PRODUCE))


@contextmanager
def mock_cluster() -> Iterator[MockCluster]:
    """A mock cluster; the test is skipped where librdkafka is not in the wheel."""
    found = [f for f in files("confluent-kafka") or () if f.name.startswith("librdkafka-")]
    if not found:
        pytest.skip("confluent-kafka was built without a librdkafka of its own")
    yield MockCluster(ctypes.CDLL(str(found[0].locate())))
