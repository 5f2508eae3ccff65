"""Putting jobs on the queue, from any program: `enqueue_sms`, and `aenqueue_sms` on an event loop.

Neither needs the database. What is wrong with a job is told here, as far as it can be known
without one; the rest is the consumer's to say.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Literal, TypedDict, Unpack

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.messaging.job import MessageJob, make_job
from allim.messaging.queue import (
    CONNECT_SECONDS,
    ENTRIES,
    TRIES,
    Letter,
    QueueError,
    client_options,
    find_queue,
    queue_error,
    sqs_client,
)
from allim.messaging.settings import QueueSettings

READ_SECONDS = 10


class JobFields(TypedDict, total=False):
    """What may be said of a job beside whom it is for and what it says; see `MessageJob`."""

    tenant_id: int | None
    reservation_id: int | str | None
    use_alimtalk_first: bool | None
    message_mode: Literal["sms", "alimtalk", "both"] | None
    template_id: str | None
    variables: Mapping[str, str] | None
    job_id: str | None
    subject: str | None
    image_id: str | None
    advertising: bool | None
    priority: Literal["high", "normal", "low"] | None
    scheduled_at: datetime | None
    expires_at: datetime | None


def enqueue_sms(*, to: str, text: str, **more: Unpack[JobFields]) -> str:
    """Put a message on the queue; its job id.

    Blocks for the one call to SQS (a few milliseconds): on an event loop use `aenqueue_sms`.
    The same `job_id` is sent once, however often it is queued; without one every call is a job
    of its own.

    Raises InvalidRequest naming every field that is wrong, QueueError where SQS did not take it
    (calling again with the same `job_id` is safe), ConfigurationError.
    """
    job = _job(to, text, more)
    client, urls = _client()
    settings = _settings()
    name = settings.messaging_sqs_queue_name
    try:
        if name not in urls:
            urls[name] = client.get_queue_url(QueueName=name)["QueueUrl"]
        client.send_message(QueueUrl=urls[name], MessageBody=job.body())
    except Exception as error:
        # The boundary to botocore.
        raise queue_error(error, name) from error
    assert job.job_id is not None
    return job.job_id


async def aenqueue_sms(*, to: str, text: str, **more: Unpack[JobFields]) -> str:
    """`enqueue_sms` for callers on an event loop."""
    job = _job(to, text, more)
    await enqueue_jobs(_settings(), [job])
    assert job.job_id is not None
    return job.job_id


async def enqueue_jobs(settings: QueueSettings, jobs: list[MessageJob]) -> None:
    """Put jobs on the queue, ten a call. Raises QueueError where one was not taken."""
    async with sqs_client(settings) as client:
        queue = await find_queue(client, settings.messaging_sqs_queue_name)
        for start in range(0, len(jobs), ENTRIES):
            part = [Letter(job.body()) for job in jobs[start : start + ENTRIES]]
            refused = await queue.send(part)
            if refused:
                refused = await queue.send([part[at] for at in sorted(refused)])
            if refused:
                raise QueueError(f"queue {queue.name} refused {len(refused)} jobs: {refused}")


def _job(to: str, text: str, more: Mapping[str, Any]) -> MessageJob:
    return make_job(to=to, text=text, **more).identified()


@cache
def _settings() -> QueueSettings:
    return Environment.of_process().read(QueueSettings)


@cache
def _client() -> tuple[Any, dict[str, str]]:
    """A blocking client, which threads may share, and the URLs of queues that it knows."""
    try:
        session = importlib.import_module("botocore.session").get_session()
        make_config = importlib.import_module("botocore.config").Config
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"SQS needs {error.name}: pip install 'allim[aws]'") from None
    config = make_config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"max_attempts": TRIES, "mode": "standard"},
    )
    return session.create_client("sqs", config=config, **client_options(_settings())), {}
