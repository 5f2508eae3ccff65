"""SQS, standard and FIFO: on a FIFO queue the group is the key and the dedupe id the event's id."""

from __future__ import annotations

import asyncio
import base64
import importlib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from allim.base.errors import ConfigurationError
from allim.events.publishers.headers import headers_of
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.message import Line
from allim.relay.ordered.publisher import DELIVERED, NOT_TRIED, MaySend
from allim.relay.outcomes import Outcome, OutcomeKind

BATCH = 10
BATCH_BYTES = 1024 * 1024
ATTRIBUTES = 10
"""The most that SQS takes with a message."""
FIRST = ("eventId", "topic", "payloadEncoding", "content-type", "eventType", "aggregateType",
         "aggregateId", "traceparent")  # fmt: skip
CALLS = 8
"""Requests under way at a time."""
CALL_SECONDS = 30.0
GROUP_LENGTH = 128

UNAVAILABLE = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "QueueDoesNotExist",
        "AccessDenied",
        "AccessDeniedException",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "ExpiredToken",
    }
)
"""True of the queue or of our credentials, not of a message: nothing is spent on them."""


class SqsPublisher:
    """Publishes to one queue. Implements relay.ordered.publisher.Publisher.

    A standard queue keeps no order; there lines only see to it that nothing is sent ahead of
    what failed. Of a line one message at a time is in a request: SQS may take the later one of
    two and not the earlier. Raises ConfigurationError where aiobotocore is not installed.
    """

    def __init__(
        self, queue_url: str, *, region: str, endpoint_url: str | None = None, **credentials: str
    ) -> None:
        try:
            sessions = importlib.import_module("aiobotocore.session")
        except ModuleNotFoundError:
            raise ConfigurationError("SQS needs aiobotocore: pip install 'allim[aws]'") from None
        self._session = sessions.get_session()
        self._options = {"region_name": region, "endpoint_url": endpoint_url, **credentials}
        self._url = queue_url
        self._fifo = queue_url.endswith(".fifo")
        self.name = f"sqs:{queue_url.rpartition('/')[2]}"
        self._client: Any = None
        self._opened: Any = None
        self._opening = asyncio.Lock()

    def begin(self, relay: str) -> None:
        """It has no names."""

    async def fence(self, relay: str) -> None:
        """It has no fence."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        """Publish a batch, wave by wave: in each the next message of every line."""
        outcomes: list[Outcome] = [NOT_TRIED] * len(batch)
        stopped: set[Line] = set()
        for wave in _waves(batch):
            places = [place for place in wave if batch[place].line not in stopped]
            limit = asyncio.Semaphore(CALLS)
            requests = _requests(batch, places)
            answers = await asyncio.gather(
                *(self._send(batch, request, may_send, limit) for request in requests)
            )
            for answer in answers:
                for place, outcome in answer.items():
                    outcomes[place] = outcome
                    line = batch[place].line
                    if outcome is not DELIVERED and line is not None:
                        stopped.add(line)
        return outcomes

    async def purge(self) -> None:
        """Nothing waits here: a request that is under way ends by itself."""

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            opened, self._opened, self._client = self._opened, None, None
            await opened.__aexit__(None, None, None)

    async def diagnose(self) -> str | None:
        """Ask for the queue."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                client = await self._open()
                await client.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])
        except Exception as error:
            # The library's boundary: whatever it raises is the finding.
            return _words(error)
        return None

    async def _send(
        self,
        batch: Sequence[OutboxMessage],
        places: Sequence[int],
        may_send: MaySend,
        limit: asyncio.Semaphore,
    ) -> Mapping[int, Outcome]:
        async with limit:
            return await self._request(batch, places, may_send)

    async def _request(
        self, batch: Sequence[OutboxMessage], places: Sequence[int], may_send: MaySend
    ) -> Mapping[int, Outcome]:
        if not may_send():
            return dict.fromkeys(places, NOT_TRIED)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                client = await self._open()
                answer = await client.send_message_batch(
                    QueueUrl=self._url,
                    Entries=[self._entry(batch[place], str(place)) for place in places],
                )
        except Exception as error:
            # The library's boundary: one exception for the whole request.
            outcome = _outcome(error)
            if len(places) == 1 or outcome.kind is OutcomeKind.FAULT:
                return dict.fromkeys(places, outcome)
            # It is one message that SQS takes none of the request for: no other pays for it.
            alone: dict[int, Outcome] = {}
            for place in places:
                alone.update(await self._request(batch, [place], may_send))
            return alone
        outcomes: dict[int, Outcome] = {}
        for taken in answer.get("Successful", ()):
            outcomes[int(taken["Id"])] = DELIVERED
        for failed in answer.get("Failed", ()):
            code, words = failed.get("Code") or "failed", failed.get("Message") or ""
            refused = failed.get("SenderFault", False)
            say = Outcome.refused if refused else Outcome.retry
            outcomes[int(failed["Id"])] = say(code, words)
        return outcomes

    def _entry(self, message: OutboxMessage, place: str) -> dict[str, Any]:
        headers = dict(headers_of(message))
        try:
            body = message.payload.decode()
        except UnicodeDecodeError:
            # SQS takes text only.
            body = base64.b64encode(message.payload).decode()
            headers["payloadEncoding"] = "base64"
        headers["topic"] = message.topic
        # Those that matter most first; what is empty SQS does not take.
        names = [name for name in (*FIRST, *(headers.keys() - FIRST)) if headers.get(name)]
        entry: dict[str, Any] = {
            "Id": place,
            "MessageBody": body,
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": headers[name]}
                for name in names[:ATTRIBUTES]
            },
        }
        if self._fifo:
            entry["MessageGroupId"] = _group(message)
            entry["MessageDeduplicationId"] = message.id
        return entry

    async def _open(self) -> Any:
        # Many requests begin together: without it the first of them would open a client each.
        async with self._opening:
            if self._client is None:
                opened = self._session.create_client("sqs", config=_config(), **self._options)
                self._client = await opened.__aenter__()
                self._opened = opened
            return self._client


def _config() -> Any:
    return importlib.import_module("aiobotocore.config").AioConfig(
        # The relay tries again by itself, in order.
        retries={"total_max_attempts": 2, "mode": "standard"},
        connect_timeout=5,
        read_timeout=20,
        max_pool_connections=CALLS,
    )


def _waves(batch: Sequence[OutboxMessage]) -> Iterable[list[int]]:
    """Places in waves: the first message of every line, then the second, and so on."""
    waves: list[list[int]] = []
    depth: dict[Line, int] = {}
    for place, message in enumerate(batch):
        wave = 0
        if message.line is not None:
            wave = depth.get(message.line, 0)
            depth[message.line] = wave + 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(place)
    return waves


def _requests(batch: Sequence[OutboxMessage], places: Sequence[int]) -> list[list[int]]:
    requests: list[list[int]] = []
    size = 0
    for place in places:
        # Base64, in the worst case, and attributes.
        bytes_ = batch[place].size * 4 // 3 + 2048
        if not requests or len(requests[-1]) >= BATCH or size + bytes_ > BATCH_BYTES:
            requests.append([])
            size = 0
        requests[-1].append(place)
        size += bytes_
    return requests


def _group(message: OutboxMessage) -> str:
    """The group of a FIFO queue: the key, where SQS can take it as such."""
    key = message.key if message.key is not None else message.id
    if 0 < len(key) <= GROUP_LENGTH and all("!" <= each <= "~" for each in key):
        return key
    return base64.urlsafe_b64encode(sha256(key.encode()).digest()).decode().rstrip("=")


def _outcome(error: Exception) -> Outcome:
    code = str(_answer(error).get("Code", ""))
    if code in UNAVAILABLE or not code:
        return Outcome.fault(code or "unreachable", _words(error))
    if code.endswith("BatchRequestTooLong") or code == "InvalidMessageContents":
        return Outcome.refused("too_large", _words(error))
    if code.startswith(("Throttl", "RequestThrottled", "ServiceUnavailable", "InternalError")):
        return Outcome.fault(code, _words(error))
    return Outcome.retry(code, _words(error))


def _words(error: Exception) -> str:
    return str(_answer(error).get("Message") or error) or type(error).__name__


def _answer(error: Exception) -> Mapping[str, Any]:
    """What SQS says; nothing where it was not reached, and there is no `response`, or None."""
    told: Mapping[str, Any] = (getattr(error, "response", None) or {}).get("Error", {})
    return told
