"""The programs that take jobs from the queue: a consumer alone, and one with a relay beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from allim.base.errors import ConfigurationError
from allim.base.logging import LogWriter
from allim.base.settings import Environment
from allim.base.tasks import cancel_and_wait
from allim.composition.delivering import Wakes, Ways, open_channels
from allim.composition.opening import Store, connected
from allim.composition.running import Stop, relaying, together
from allim.database.pool import Database
from allim.database.wakes import Waker
from allim.messaging.consumer import Consumer
from allim.messaging.dead_letters import DeadLetterCopier
from allim.messaging.intake import Intake
from allim.messaging.queue import QueueError, find_queue, sqs_client
from allim.messaging.settings import QueueSettings
from allim.messaging.spot import watch_spot

log = logging.getLogger("allim")


async def run_consume(store: Store, environment: Environment, writer: LogWriter) -> None:
    """From the queue into the box, until a signal; relays elsewhere deliver."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected(store, environment, "allim consume"))
        wakes = Wakes(await stack.enter_async_context(Waker(database)))
        ways = await stack.enter_async_context(open_channels(database, environment))
        consuming = await stack.enter_async_context(_consuming(database, ways, environment, wakes))
        await stack.enter_async_context(_watching_spot(environment, consuming.stop))
        await together(consuming.stop, consuming.run())


async def run_messaging_worker(
    store: Store, environment: Environment, writer: LogWriter, *, channels: Sequence[str] = ()
) -> None:
    """From the queue to the customer in one process, until a signal."""
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(
            relaying(store, environment, writer, "allim messaging-worker", channels=channels)
        )
        consuming = await stack.enter_async_context(
            _consuming(relay.database, relay.ways, environment, relay.wakes)
        )

        def stop() -> None:
            consuming.stop()
            relay.relay.stop()

        await stack.enter_async_context(_watching_spot(environment, stop))
        await together(stop, consuming.run(), relay.relay.run())


class _Consuming:
    """A consumer, and the copier of dead letters beside it."""

    def __init__(self, consumer: Consumer, copier: DeadLetterCopier) -> None:
        self._consumer = consumer
        self._copier = copier
        self._copying_ends = asyncio.Event()

    def stop(self) -> None:
        self._consumer.stop()

    async def run(self) -> None:
        copying = asyncio.create_task(self._copier.run(self._copying_ends))
        try:
            await self._consumer.run()
        finally:
            self._copying_ends.set()
            await asyncio.wait([copying], timeout=5.0)
            await cancel_and_wait(copying)


@asynccontextmanager
async def _consuming(
    database: Database, ways: Ways, environment: Environment, wakes: Wakes
) -> AsyncIterator[_Consuming]:
    """Raises ConfigurationError where there is no such queue, or it cannot be reached."""
    settings = environment.read(QueueSettings)
    async with sqs_client(settings) as client:
        try:
            queue = await find_queue(client, settings.messaging_sqs_queue_name)
            dead_letters = await find_queue(client, settings.dead_letter_queue_name)
        except QueueError as error:
            raise ConfigurationError(str(error)) from error
        intake = Intake(database, ways.channels, environment, wakes)
        yield _Consuming(
            Consumer(queue, database, intake, settings), DeadLetterCopier(database, dead_letters)
        )


@asynccontextmanager
async def _watching_spot(environment: Environment, stop: Stop) -> AsyncIterator[None]:
    settings = environment.read(QueueSettings)
    if not settings.messaging_spot_watch:
        yield
        return
    watching = asyncio.create_task(watch_spot(settings.messaging_imds_url.rstrip("/"), stop))
    try:
        yield
    finally:
        await cancel_and_wait(watching)
