"""What operators do to the queue: create it, look at it, give its dead letters another chance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from allim.database.pool import Database
from allim.messaging.consumer import SQL as CONSUMER
from allim.messaging.queue import (
    MESSAGE_ID,
    Letter,
    MessageQueue,
    QueueError,
    QueueMissing,
    Received,
    create_queue,
    find_queue,
)
from allim.messaging.settings import QueueSettings

KEPT_SECONDS = 14 * 24 * 3600
"""The longest that SQS keeps a message: dead letters wait for a person."""
JOBS_KEPT_SECONDS = 4 * 24 * 3600
REDRIVE_VISIBILITY = 120
_COUNTS = {
    "waiting": "ApproximateNumberOfMessages",
    "in_flight": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}


@dataclass(frozen=True, slots=True)
class QueueState:
    """How a queue stands; None where there is none of that name."""

    name: str
    waiting: int = 0
    in_flight: int = 0
    delayed: int = 0
    visibility: int = 0
    redrive: str = ""


async def create_queues(client: Any, settings: QueueSettings) -> tuple[MessageQueue, MessageQueue]:
    """The queue and its dead letters, made or set right. Raises QueueError."""
    dead_letters = await create_queue(
        client,
        settings.dead_letter_queue_name,
        {"MessageRetentionPeriod": str(KEPT_SECONDS)},
    )
    arn = (await dead_letters.attributes())["QueueArn"]
    redrive = {"deadLetterTargetArn": arn, "maxReceiveCount": settings.messaging_sqs_max_receives}
    queue = await create_queue(
        client,
        settings.messaging_sqs_queue_name,
        {
            "VisibilityTimeout": str(settings.messaging_sqs_visibility_seconds),
            "ReceiveMessageWaitTimeSeconds": str(settings.messaging_sqs_wait_seconds),
            "MessageRetentionPeriod": str(JOBS_KEPT_SECONDS),
            "RedrivePolicy": to_json(redrive).decode(),
        },
    )
    return queue, dead_letters


async def queue_state(client: Any, name: str) -> QueueState | None:
    """How a queue stands. Raises QueueError."""
    try:
        queue = await find_queue(client, name)
    except QueueMissing:
        return None
    said = await queue.attributes()
    counts = {ours: int(said.get(theirs, 0)) for ours, theirs in _COUNTS.items()}
    return QueueState(
        name,
        visibility=int(said.get("VisibilityTimeout", 0)),
        redrive=said.get("RedrivePolicy", ""),
        **counts,
    )


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of one dead letter."""

    message_id: str
    done: bool
    words: str


async def redrive(
    queue: MessageQueue,
    dead_letters: MessageQueue,
    retry: Callable[[int], Awaitable[str]],
    *,
    limit: int,
) -> AsyncIterator[Redriven]:
    """Give dead letters another chance, up to `limit` of them.

    Jobs that never became a notification go back to the queue: sent there first and deleted
    here afterwards, since a job that is queued twice is sent once. Copies of deliveries that
    died are not jobs any more: `retry` sends the delivery itself again and answers with words;
    it raises where that cannot be, and then the letter stays. Raises QueueError.
    """
    seen = 0
    while seen < limit:
        letters = await dead_letters.receive(wait=1, visibility=REDRIVE_VISIBILITY)
        if not letters:
            return
        for letter in letters:
            seen += 1
            try:
                words = await _redrive(queue, letter, retry)
            except Exception as error:
                # The boundary to what may stand in a dead letter: it stays where it is.
                yield Redriven(letter.message_id, False, str(error))
                continue
            await dead_letters.delete([letter.receipt])
            yield Redriven(letter.message_id, True, words)


async def _redrive(
    queue: MessageQueue, letter: Received, retry: Callable[[int], Awaitable[str]]
) -> str:
    delivery = letter.attributes.get("delivery_id")
    if delivery is not None:
        return await retry(int(delivery))
    # Queued again it gets another id; a job that has none of its own stays known by the first.
    again = {MESSAGE_ID: letter.message_id, **letter.attributes}
    if failed := await queue.send([Letter(letter.body, again)]):
        raise QueueError(f"queue {queue.name} refused it: {failed[0]}")
    return f"back on {queue.name}"


async def reasons_of(database: Database, message_ids: list[str]) -> dict[str, str]:
    """Why jobs were refused, by their message's id."""
    rows = await database.fetch(CONSUMER["reasons"], {"ids": message_ids})
    return {row[0]: row[1] for row in rows}


async def peek(dead_letters: MessageQueue, limit: int = 10) -> list[Received]:
    """Some of the dead letters, which stay where they are. Raises QueueError."""
    letters = list(await dead_letters.receive(wait=1, visibility=5))[:limit]
    if letters:
        await dead_letters.hide([letter.receipt for letter in letters], 0)
    return letters
