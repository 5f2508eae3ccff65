"""One Amazon SQS queue, as the consumer and the dead letters use it."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from allim.base.errors import AllimError, ConfigurationError
from allim.messaging.settings import QueueSettings

ENTRIES = 10
"""The most entries that one call takes."""
READ_GRACE_SECONDS = 10
CONNECT_SECONDS = 5
MESSAGE_ID = "message_id"
"""The attribute of a redriven job that holds the id of its first message."""
TRIES = 3
"""Calls that may safely be made again are, so often."""
CREDENTIALS_HINT = ": set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"

Result = TypeVar("Result")


class QueueError(AllimError):
    """The queue did not do what it was asked; `code` is Amazon's where it answered."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class QueueMissing(QueueError):
    """There is no such queue."""


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it was received; `receives` counts this time too."""

    message_id: str
    receipt: str
    body: str
    receives: int
    attributes: Mapping[str, str]

    @property
    def first_id(self) -> str:
        """The id of the message that its job came by first; a redrive sends it in another."""
        return self.attributes.get(MESSAGE_ID) or self.message_id


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to be sent."""

    body: str
    attributes: Mapping[str, str] = field(default_factory=dict)


class MessageQueue:
    """One queue. Its methods raise QueueError; deadlines are the client's."""

    def __init__(self, client: Any, name: str, url: str) -> None:
        self._client = client
        self.name = name
        self.url = url

    async def receive(self, *, wait: int, visibility: int) -> Sequence[Received]:
        """Up to ten messages, waiting up to `wait` seconds for the first."""
        answer = await _asked(
            self._client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=ENTRIES,
                WaitTimeSeconds=wait,
                VisibilityTimeout=visibility,
                MessageAttributeNames=["All"],
                AttributeNames=["ApproximateReceiveCount"],
            ),
            self.name,
        )
        return [_received(message) for message in answer.get("Messages", ())]

    async def delete(self, receipts: Sequence[str]) -> Sequence[str]:
        """Delete by receipt; those that the queue refused, having been asked again."""
        left = list(receipts)
        for _ in range(TRIES):
            if not left:
                break
            left = await self._in_tens(
                left,
                lambda part: self._client.delete_message_batch(
                    QueueUrl=self.url,
                    Entries=[
                        {"Id": str(at), "ReceiptHandle": receipt} for at, receipt in enumerate(part)
                    ],
                ),
            )
        return left

    async def hide(self, receipts: Sequence[str], seconds: int) -> Sequence[str]:
        """Hide messages for so long from now on (0: show them); those that the queue refused."""
        return await self._in_tens(
            list(receipts),
            lambda part: self._client.change_message_visibility_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(at), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
                    for at, receipt in enumerate(part)
                ],
            ),
        )

    async def send(self, letters: Sequence[Letter]) -> Mapping[int, str]:
        """Send up to ten; the places of those that the queue refused, and why."""
        answer = await _asked(
            self._client.send_message_batch(
                QueueUrl=self.url,
                Entries=[
                    {
                        "Id": str(at),
                        "MessageBody": letter.body,
                        "MessageAttributes": {
                            name: {"DataType": "String", "StringValue": value}
                            for name, value in letter.attributes.items()
                        },
                    }
                    for at, letter in enumerate(letters)
                ],
            ),
            self.name,
        )
        return {int(entry["Id"]): str(entry["Code"]) for entry in answer.get("Failed", ())}

    async def attributes(self) -> Mapping[str, str]:
        """All that the queue says of itself."""
        answer = await _asked(
            self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"]), self.name
        )
        found: Mapping[str, str] = answer.get("Attributes", {})
        return found

    async def _in_tens(self, receipts: list[str], call: Any) -> list[str]:
        refused: list[str] = []
        for start in range(0, len(receipts), ENTRIES):
            part = receipts[start : start + ENTRIES]
            answer = await _asked(call(part), self.name)
            refused += [part[int(entry["Id"])] for entry in answer.get("Failed", ())]
        return refused


@asynccontextmanager
async def sqs_client(settings: QueueSettings) -> AsyncIterator[Any]:
    """A client of SQS. Raises ConfigurationError where it cannot be one."""
    try:
        make_config = importlib.import_module("aiobotocore.config").AioConfig
        session = importlib.import_module("aiobotocore.session").get_session()
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"SQS needs {error.name}: pip install 'allim[aws]'") from None
    config = make_config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=settings.messaging_sqs_wait_seconds + READ_GRACE_SECONDS,
        retries={"max_attempts": TRIES, "mode": "standard"},
        max_pool_connections=settings.messaging_sqs_concurrency + 8,
    )
    try:
        opening = session.create_client("sqs", config=config, **client_options(settings))
    except Exception as error:
        # The boundary to botocore, which raises many kinds for what settings say.
        raise ConfigurationError(f"SQS cannot be called: {error}") from error
    async with opening as client:
        yield client


def client_options(settings: QueueSettings) -> dict[str, Any]:
    """What a client of botocore's is made with; what is not set it finds by itself."""
    keys = {
        "aws_access_key_id": settings.aws_access_key_id,
        "aws_secret_access_key": settings.aws_secret_access_key,
        "aws_session_token": settings.aws_session_token,
    }
    return {
        "region_name": settings.aws_region,
        "endpoint_url": settings.endpoint,
        **{name: key.get_secret_value() for name, key in keys.items() if key is not None},
    }


async def find_queue(client: Any, name: str) -> MessageQueue:
    """The queue of a name. Raises QueueMissing, QueueError."""
    answer = await _asked(client.get_queue_url(QueueName=name), name)
    return MessageQueue(client, name, answer["QueueUrl"])


async def create_queue(client: Any, name: str, attributes: Mapping[str, str]) -> MessageQueue:
    """The queue of a name with these attributes, whether it was there or not. Raises QueueError."""
    try:
        queue = await find_queue(client, name)
    except QueueMissing:
        answer = await _asked(
            client.create_queue(QueueName=name, Attributes=dict(attributes)), name
        )
        return MessageQueue(client, name, answer["QueueUrl"])
    await _asked(client.set_queue_attributes(QueueUrl=queue.url, Attributes=dict(attributes)), name)
    return queue


async def _asked(call: Awaitable[Any], queue: str) -> Any:
    try:
        return await call
    except Exception as error:
        # The boundary to botocore.
        raise queue_error(error, queue) from error


def queue_error(error: Exception, queue: str) -> QueueError:
    """What an exception of botocore's means."""
    response = getattr(error, "response", None)
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    if "NonExistentQueue" in code or "QueueDoesNotExist" in code:
        return QueueMissing(f"there is no queue {queue}: create it with `allim sqs create`", code)
    # By name: botocore comes with an extra.
    hint = CREDENTIALS_HINT if type(error).__name__ == "NoCredentialsError" else ""
    return QueueError(f"queue {queue}: {error}{hint}", code)


def _received(message: Mapping[str, Any]) -> Received:
    return Received(
        message_id=message["MessageId"],
        receipt=message["ReceiptHandle"],
        body=message.get("Body", ""),
        receives=int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
        attributes={
            name: str(value.get("StringValue", ""))
            for name, value in message.get("MessageAttributes", {}).items()
        },
    )
