"""Events to SQS, standard and FIFO, against moto's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiobotocore.session import get_session  # type: ignore[import-untyped]
from botocore.exceptions import ClientError, HTTPClientError  # type: ignore[import-untyped]
from moto.server import ThreadedMotoServer

from allim.database.pool import Database
from allim.events.publishers.sqs import SqsPublisher, _waves
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.message import Line
from allim.relay.outcomes import OutcomeKind
from tests.events.relay.conftest import Outbox, relaying

CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
REGION = "ap-northeast-2"


def message(key: str | None, payload: bytes, seq: int = 1, **headers: str) -> OutboxMessage:
    line = None if key is None else Line(1, "orders", key)
    return OutboxMessage(
        1, seq, line, f"id-{seq}", "orders", key, payload, headers, None, None, 0.0, 0, 0
    )


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server that speaks SQS."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def sqs(endpoint: str) -> AsyncIterator[Any]:
    """A client of it."""
    async with get_session().create_client(
        "sqs", region_name=REGION, endpoint_url=endpoint, **CREDENTIALS
    ) as client:
        yield client


async def queue(sqs: Any, name: str, **attributes: str) -> str:
    created = await sqs.create_queue(QueueName=name, Attributes=attributes)
    return str(created["QueueUrl"])


async def received(sqs: Any, url: str, count: int) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            answer = await sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=1,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            for one in answer.get("Messages", ()):
                found.append(one)
                await sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    return found


async def test_a_fifo_queue_gets_each_key_in_order_as_its_group(
    database: Database, outbox: Outbox, sqs: Any, endpoint: str
) -> None:
    url = await queue(sqs, "orders.fifo", FifoQueue="true")
    publisher = SqsPublisher(url, region=REGION, endpoint_url=endpoint, **CREDENTIALS)
    events = [(key, f"{number:02}") for number in range(8) for key in ("a", "b", "김")]
    await outbox.put(*events)
    async with relaying(database, publisher):
        rows = await outbox.until_all_are("SENT")
    came = await received(sqs, url, len(rows))
    groups: dict[str, list[str]] = {}
    for one in came:
        groups.setdefault(one["Attributes"]["MessageGroupId"], []).append(one["Body"])
    assert {"a", "b"} < groups.keys()
    assert len(groups) == 3
    assert all(bodies == [f"{number:02}" for number in range(8)] for bodies in groups.values())
    ids = {one["Attributes"]["MessageDeduplicationId"] for one in came}
    assert ids == {str(row["id"]) for row in rows}
    assert {one["MessageAttributes"]["eventId"]["StringValue"] for one in came} == ids
    await publisher.close()


async def test_a_standard_queue_gets_topic_headers_and_bytes(sqs: Any, endpoint: str) -> None:
    url = await queue(sqs, "orders")
    publisher = SqsPublisher(url, region=REGION, endpoint_url=endpoint, **CREDENTIALS)
    headers = {f"header{number}": "x" for number in range(20)}
    batch = [
        message("a", "글자".encode(), 1, eventType="Placed", **headers),
        message("a", b"\xff\x00", 2),
    ]
    outcomes = await publisher.publish(batch, lambda: True)
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.DELIVERED] * 2
    first, second = sorted(await received(sqs, url, 2), key=lambda one: one["Body"], reverse=True)
    said = {name: value["StringValue"] for name, value in first["MessageAttributes"].items()}
    assert first["Body"] == "글자"
    assert (said["eventId"], said["topic"], said["eventType"]) == ("id-1", "orders", "Placed")
    assert len(said) == 10, "as many as SQS takes"
    assert second["Body"] == "/wA="
    assert second["MessageAttributes"]["payloadEncoding"]["StringValue"] == "base64"
    await publisher.close()


async def test_one_entry_that_is_refused_stops_its_line_only(endpoint: str, sqs: Any) -> None:
    url = await queue(sqs, "partial")
    publisher = SqsPublisher(url, region=REGION, endpoint_url=endpoint, **CREDENTIALS)
    client = await publisher._open()
    send = client.send_message_batch

    async def answer(**request: Any) -> Any:
        refused = [e for e in request["Entries"] if e["MessageBody"] == "a1"]
        kept = [e for e in request["Entries"] if e not in refused]
        answered = await send(**{**request, "Entries": kept}) if kept else {}
        failed = [{"Id": e["Id"], "Code": "InternalError", "SenderFault": False} for e in refused]
        return {**answered, "Failed": failed}

    client.send_message_batch = answer
    batch = [
        message("a", b"a1", 1), message("b", b"b1", 2), message("a", b"a2", 3),
        message("b", b"b2", 4), message(None, b"n", 5),
    ]  # fmt: skip
    outcomes = await publisher.publish(batch, lambda: True)
    assert [outcome.kind for outcome in outcomes] == [
        OutcomeKind.RETRY, OutcomeKind.DELIVERED, OutcomeKind.RELEASED,
        OutcomeKind.DELIVERED, OutcomeKind.DELIVERED,
    ]  # fmt: skip
    assert {one["Body"] for one in await received(sqs, url, 3)} == {"b1", "b2", "n"}
    await publisher.close()


async def test_a_message_that_sqs_takes_no_request_with_fails_alone(
    endpoint: str, sqs: Any
) -> None:
    url = await queue(sqs, "poison")
    publisher = SqsPublisher(url, region=REGION, endpoint_url=endpoint, **CREDENTIALS)
    client = await publisher._open()
    send = client.send_message_batch

    async def answer(**request: Any) -> Any:
        if any(entry["MessageBody"] == "b" for entry in request["Entries"]):
            error = {"Code": "InvalidParameterValue", "Message": "the attribute is invalid"}
            raise ClientError({"Error": error}, "SendMessageBatch")
        return await send(**request)

    client.send_message_batch = answer
    batch = [message("a", b"a", 1), message("b", b"b", 2), message("c", b"c", 3)]
    outcomes = await publisher.publish(batch, lambda: True)
    assert [outcome.kind for outcome in outcomes] == [
        OutcomeKind.DELIVERED,
        OutcomeKind.RETRY,
        OutcomeKind.DELIVERED,
    ]
    assert outcomes[1].detail == "the attribute is invalid"
    assert {one["Body"] for one in await received(sqs, url, 2)} == {"a", "c"}
    await publisher.close()


async def test_an_answer_that_is_no_answer_is_no_fault_of_a_message(endpoint: str) -> None:
    url = f"{endpoint}/1/orders"
    publisher = SqsPublisher(url, region=REGION, endpoint_url=endpoint, **CREDENTIALS)
    client = await publisher._open()

    async def breaks(**_request: Any) -> Any:
        raise HTTPClientError(error="connection torn")

    client.send_message_batch = breaks
    batch = [message("a", b"1", 1), message("b", b"2", 2)]
    outcomes = await publisher.publish(batch, lambda: True)
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.FAULT] * 2
    await publisher.close()


async def test_a_queue_that_is_missing_or_silent_is_no_fault_of_a_message(
    endpoint: str, sqs: Any
) -> None:
    url = await queue(sqs, "there")
    for wrong in (url.replace("there", "gone"), "http://127.0.0.1:1/1/there"):
        at = endpoint if "gone" in wrong else "http://127.0.0.1:1"
        publisher = SqsPublisher(wrong, region=REGION, endpoint_url=at, **CREDENTIALS)
        outcomes = await publisher.publish([message("a", b"1")], lambda: True)
        assert [outcome.kind for outcome in outcomes] == [OutcomeKind.FAULT]
        assert await publisher.diagnose()
        await publisher.close()


def test_a_wave_has_one_message_of_each_line() -> None:
    keys = ["a", "a", None, "b", None, "a"]
    batch = [message(key, b"", number) for number, key in enumerate(keys)]
    assert list(_waves(batch)) == [[0, 2, 3, 4], [1], [5]]


class SlowToOpen:
    """A session that counts the clients it opens; others may go on while it does."""

    def __init__(self, session: Any) -> None:
        self.opened = 0
        self._session = session

    @asynccontextmanager
    async def create_client(self, *names: str, **options: Any) -> AsyncIterator[Any]:
        self.opened += 1
        await asyncio.sleep(0)
        async with self._session.create_client(*names, **options) as client:
            yield client


async def test_requests_that_begin_together_share_one_client(endpoint: str, sqs: Any) -> None:
    url = await queue(sqs, "together")
    publisher = SqsPublisher(url, region=REGION, endpoint_url=endpoint, **CREDENTIALS)
    publisher._session = session = SlowToOpen(publisher._session)
    batch = [message(None, b"x", number) for number in range(30)]
    outcomes = await publisher.publish(batch, lambda: True)
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.DELIVERED}
    assert session.opened == 1
    await publisher.close()
