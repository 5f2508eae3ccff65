"""What an event is: its id, key, headers and payload, and what it may not be."""

from __future__ import annotations

import importlib
import io
import json
import pickle
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID, uuid4

import fastavro
import psycopg
import pytest
from opentelemetry import trace

from allim.events import AvroSerializer, CloudEvent, DomainEvent, ProtobufSerializer, RawEvent
from allim.events.encryption import Encryption, KeyRing
from allim.events.errors import (
    InvalidEvent,
    MessageSerializationFailed,
    OutboxError,
    PayloadTooLarge,
    SerializerUnavailable,
)
from allim.events.event import Event
from allim.events.message import HEADERS_LIMIT, KEY_LIMIT, PAYLOAD_LIMIT, Message, prepare
from allim.events.publishing import Publisher
from allim.events.slots import slot_of
from tests.events.producer.conftest import USER, Outbox, UserCreated, user_created

struct_pb2: Any = importlib.import_module("google.protobuf.struct_pb2")

PLAIN = Encryption(KeyRing())


def prepared(event: Event) -> Message:
    (message,) = prepare([event], PLAIN)
    return message


def headers_of(event: Event) -> Mapping[str, str]:
    found: dict[str, str] = json.loads(prepared(event).headers)
    return found


def test_the_event_of_the_specification_needs_nothing_but_its_topic(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    event = user_created()
    with psycopg.connect(database_url) as tx:
        publisher.publish(tx, event)
    (row,) = outbox.rows()
    assert bytes(row["payload"]) == b'{"user_id":"%s","username":"kim"}' % str(USER).encode()
    assert row["headers"] == {
        "aggregateType": "user",
        "aggregateId": str(USER),
        "eventType": "UserCreated",
    }
    assert (row["id"], row["topic"], row["status"]) == (event.event_id, "user-events", "PENDING")
    assert (row["message_key"], row["content_type"]) == (str(USER), "application/json")
    assert row["slot"] == slot_of(str(USER))
    assert (row["retry_count"], row["encryption_key"]) == (0, None)


def test_each_instance_is_one_event_wherever_it_goes() -> None:
    event = user_created()
    assert event.event_id.version == 7
    assert event.event_id == event.event_id != user_created().event_id
    assert event.model_copy().event_id == event.event_id
    assert pickle.loads(pickle.dumps(event)).event_id == event.event_id
    assert event.model_copy(update={"username": "lee"}).event_id != event.event_id
    own = uuid4()
    assert event.identified_by(own).event_id == own != event.event_id


class OrderPlaced(DomainEvent):
    """More than one id: it has to say which one orders it."""

    topic = "orders"
    tenant_id: int
    order_id: int


class Keyed(OrderPlaced):
    @property
    def aggregate_id(self) -> str:
        return str(self.order_id)

    @property
    def aggregate_type(self) -> str:
        return "order"

    @property
    def headers(self) -> Mapping[str, str]:
        return {**super().headers, "tenant": str(self.tenant_id)}


class Identified(DomainEvent):
    topic = "things"
    id: int
    parent_id: int


class Unordered(DomainEvent):
    topic = "clicks"
    ordered = False
    page: str


def test_an_event_says_by_what_it_is_ordered() -> None:
    with pytest.raises(InvalidEvent, match="any of tenant_id, order_id could be it"):
        prepared(OrderPlaced(tenant_id=1, order_id=2))
    assert prepared(Keyed(tenant_id=1, order_id=2)).key == "2"
    assert headers_of(Keyed(tenant_id=1, order_id=2)) == {
        "eventType": "Keyed",
        "aggregateType": "order",
        "aggregateId": "2",
        "tenant": "1",
    }
    assert prepared(Identified(id=7, parent_id=8)).key == "7"
    message = prepared(Unordered(page="/"))
    assert message.key is None
    assert 0 <= message.slot < 64
    assert prepared(RawEvent(topic="t", key=None, payload=b"")).key is None


def test_a_null_key_is_refused_where_order_matters() -> None:
    class Maybe(DomainEvent):
        topic = "t"
        user_id: int | None = None

    with pytest.raises(InvalidEvent, match="user_id is None"):
        prepared(Maybe())

    class Named(DomainEvent):
        topic = "t"
        name: str

    with pytest.raises(InvalidEvent, match="no field of it ends in _id"):
        prepared(Named(name="x"))


def raw(**changes: Any) -> RawEvent:
    return RawEvent(**{"topic": "t", "key": "k", "payload": b"x", **changes})


@pytest.mark.parametrize(
    ("event", "error", "words"),
    [
        (raw(topic=""), InvalidEvent, "topic ''"),
        (raw(topic="a topic"), InvalidEvent, "topic 'a topic'"),
        (raw(topic=".."), InvalidEvent, "topic"),
        (raw(topic="t" * 250), InvalidEvent, "topic"),
        (raw(topic=None), InvalidEvent, "topic None"),
        (raw(key=""), InvalidEvent, "key is empty"),
        (raw(key=7), InvalidEvent, "key must be text, not int"),
        (raw(key="a\0b"), InvalidEvent, "key has a NUL"),
        (raw(key="\ud800"), InvalidEvent, "surrogate"),
        (raw(key="가" * (KEY_LIMIT // 3 + 1)), InvalidEvent, "the most is 1,024"),
        (raw(headers={"": "x"}), InvalidEvent, "name is empty"),
        (raw(headers={"n": 7}), InvalidEvent, "'n' is no text"),
        (raw(headers={"n": "a\0"}), InvalidEvent, "NUL"),
        (raw(headers={"n": "\ud800"}), MessageSerializationFailed, "surrogate"),
        (raw(headers={"eventId": "x"}), InvalidEvent, "override event_id"),
        (raw(headers={"n": "x" * HEADERS_LIMIT}), InvalidEvent, "headers have"),
        (raw(payload="text"), InvalidEvent, "bytes, not str"),
        (raw(payload=b"x" * (PAYLOAD_LIMIT + 1)), PayloadTooLarge, "1,048,577 bytes"),
        (raw(event_id="x"), InvalidEvent, "no UUID"),
        (raw(content_type=""), InvalidEvent, "content type is empty"),
        ({"topic": "t"}, InvalidEvent, "dict is neither"),
    ],
)
def test_what_cannot_be_stored_or_sent_is_refused_before_any_sql(
    publisher: Publisher,
    outbox: Outbox,
    database_url: str,
    event: Any,
    error: type[OutboxError],
    words: str,
) -> None:
    with psycopg.connect(database_url) as tx:
        with pytest.raises(error, match=words):
            publisher.publish(tx, user_created(), event)
        assert tx.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    assert outbox.count() == 0


def test_an_event_that_cannot_be_serialised_says_which_and_why() -> None:
    class Stubborn(DomainEvent):
        topic = "t"
        user_id: int
        thing: Any

    with pytest.raises(MessageSerializationFailed, match="Stubborn cannot be serialised: Pydantic"):
        prepared(Stubborn(user_id=1, thing=object()))

    class Broken(UserCreated):
        def serialize(self) -> bytes:
            raise KeyError("nowhere")

    with pytest.raises(MessageSerializationFailed, match="KeyError: 'nowhere'"):
        prepared(Broken(user_id=USER, username="x"))


def test_a_payload_of_exactly_the_limit_is_stored(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    payload = bytes(range(256)) * (PAYLOAD_LIMIT // 256)
    with psycopg.connect(database_url) as tx:
        assert publisher.publish(tx, *(raw(payload=payload) for _ in range(6))) == 6
    assert {bytes(row["payload"]) for row in outbox.rows()} == {payload}


@pytest.mark.filterwarnings("ignore:Field name:UserWarning")
def test_a_field_may_not_hide_what_an_event_is_told_by() -> None:
    with pytest.raises(TypeError, match="cannot be called key"):

        class Hiding(DomainEvent):
            topic = "t"
            key: str

    with pytest.raises(TypeError, match="write `topic = …` without a type"):

        class Typed(DomainEvent):
            topic: str = "t"  # type: ignore[misc]


def test_the_trace_is_carried() -> None:
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    assert "traceparent" not in headers_of(user_created())
    with trace.use_span(trace.NonRecordingSpan(context)):
        found = headers_of(user_created())
        assert found["traceparent"] == f"00-{'0' * 29}abc-{'0' * 13}def-01"
        assert headers_of(raw(headers={"traceparent": "own"}))["traceparent"] == "own"


class Paid(DomainEvent):
    topic: ClassVar[str] = "payments"
    payment_id: UUID
    amount: Decimal
    at: datetime


PAID = {"payment_id": USER, "amount": Decimal("12.50"), "at": datetime(2026, 1, 2, tzinfo=UTC)}
SCHEMA = {
    "type": "record",
    "name": "Paid",
    "fields": [
        {"name": "payment_id", "type": {"type": "string", "logicalType": "uuid"}},
        {
            "name": "amount",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        },
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}


def test_avro_is_read_back_by_any_avro_reader() -> None:
    class Avro(Paid):
        serializer = AvroSerializer(SCHEMA)

    class Registered(Paid):
        serializer = AvroSerializer(SCHEMA, schema_id=258)

    message = prepared(Avro.model_validate(PAID))
    assert message.content_type == "application/avro"
    assert fastavro.schemaless_reader(io.BytesIO(message.payload), SCHEMA, None) == PAID
    registered = prepared(Registered.model_validate(PAID)).payload
    assert registered == b"\x00\x00\x00\x01\x02" + message.payload

    class Unfit(DomainEvent):
        topic = "payments"
        serializer = AvroSerializer(SCHEMA)
        payment_id: int

    with pytest.raises(MessageSerializationFailed, match="Unfit cannot be serialised"):
        prepared(Unfit(payment_id=1))


def test_protobuf_is_read_back_by_the_message_class() -> None:
    class Proto(UserCreated):
        serializer = ProtobufSerializer(struct_pb2.Struct)

    class Registered(UserCreated):
        serializer = ProtobufSerializer(struct_pb2.Struct, schema_id=1)

    message = prepared(Proto(user_id=USER, username="kim"))
    assert message.content_type == "application/protobuf"
    assert struct_pb2.Struct.FromString(message.payload)["username"] == "kim"
    registered = prepared(Registered(user_id=USER, username="kim")).payload
    assert registered == b"\x00\x00\x00\x00\x01\x00" + message.payload


@pytest.mark.parametrize(
    ("module", "extra", "make"),
    [
        ("fastavro", "avro", lambda: AvroSerializer(SCHEMA)),
        ("google.protobuf.json_format", "protobuf", lambda: ProtobufSerializer(struct_pb2.Struct)),
    ],
)
def test_a_library_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, make: Any
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SerializerUnavailable, match=rf"pip install 'allim\[{extra}\]'"):
        make()


def test_cloud_events_are_told_in_headers_and_leave_the_payload_alone() -> None:
    class Created(CloudEvent):
        topic = "user-events"
        event_source = "/shop/users"
        user_id: UUID

    moment = int(datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC).timestamp() * 1000)
    event = Created(user_id=USER).identified_by(UUID(int=moment << 80 | 7 << 76 | 1 << 63))
    assert prepared(event).payload == b'{"user_id":"%s"}' % str(USER).encode()
    assert headers_of(event) == {
        "eventType": "Created",
        "aggregateType": "user",
        "aggregateId": str(USER),
        "ce_specversion": "1.0",
        "ce_id": str(event.event_id),
        "ce_source": "/shop/users",
        "ce_type": "Created",
        "ce_subject": str(USER),
        "ce_time": "2026-01-02T03:04:05.678000Z",
    }

    class Nowhere(CloudEvent):
        topic = "t"
        user_id: UUID

    with pytest.raises(InvalidEvent, match="event_source"):
        prepared(Nowhere(user_id=USER))
