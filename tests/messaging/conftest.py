"""A queue of its own for each test, on one SQS stand-in for the whole run of a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.messaging.consumer import Consumer
from allim.messaging.intake import Intake
from allim.messaging.queue import Letter, MessageQueue, Received, sqs_client
from allim.messaging.queues import create_queues
from allim.messaging.settings import QueueSettings
from allim.testing.sqs import SqsServer, sqs_server
from tests.foundations import open_channels


@pytest.fixture(scope="session")
def sqs() -> Iterator[SqsServer]:
    with sqs_server() as server:
        yield server


@dataclass
class Queues:
    """The queue of a test and its dead letters; `environment` names them."""

    environment: Mapping[str, str]
    settings: QueueSettings
    jobs: MessageQueue
    dead: MessageQueue

    async def put(self, *bodies: str) -> None:
        """Put messages on the queue as somebody else would."""
        for start in range(0, len(bodies), 10):
            assert not await self.jobs.send([Letter(body) for body in bodies[start : start + 10]])

    async def waiting(self) -> int:
        """How many wait or are in flight."""
        said = await self.jobs.attributes()
        return int(said["ApproximateNumberOfMessages"]) + int(
            said["ApproximateNumberOfMessagesNotVisible"]
        )

    async def dead_letters(self) -> list[Received]:
        """What lies in the dead letters now."""
        return list(await self.dead.receive(wait=1, visibility=1))


@pytest.fixture
async def queues(sqs: SqsServer) -> AsyncIterator[Queues]:
    environment = sqs.environment(f"jobs-{uuid4().hex[:10]}")
    settings = Environment(environment).read(QueueSettings)
    # Shorter than an operator may set it, so that no test waits long.
    settings = settings.model_copy(
        update={"messaging_sqs_visibility_seconds": 3, "messaging_sqs_wait_seconds": 1}
    )
    async with sqs_client(settings) as client:
        jobs, dead = await create_queues(client, settings)
        yield Queues(environment, settings, jobs, dead)


@pytest.fixture
async def channels() -> AsyncIterator[Mapping[str, Channel]]:
    # Not configured, so that nothing is called; a mock would ask for no template.
    async with open_channels(Environment({})) as channels:
        yield channels


@pytest.fixture
def consumer(database: Database, queues: Queues, channels: Mapping[str, Channel]) -> Consumer:
    return make_consumer(database, queues, channels)


def make_consumer(
    database: Database, queues: Queues, channels: Mapping[str, Channel], **settings: Any
) -> Consumer:
    intake = Intake(database, channels, Environment({}))
    return Consumer(queues.jobs, database, intake, queues.settings.model_copy(update=settings))
