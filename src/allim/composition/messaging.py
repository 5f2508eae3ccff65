"""The programs that take jobs from the queue: a consumer alone, and one with a relay beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from allim.base.errors import ConfigurationError
from allim.base.logging import LogWriter
from allim.base.settings import Environment
from allim.base.tasks import cancel_and_wait
from allim.composition.delivering import Wakes, Ways, open_channels
from allim.composition.opening import Store, connected
from allim.composition.running import Stop, relaying, showing, together
from allim.composition.watching import Watch
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
        watch = await stack.enter_async_context(Watch(database, ways.channels, writer))
        watch.registry.register(JobFigures(consuming.consumer))
        await stack.enter_async_context(showing(environment, watch.registry, database))
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
        relay.registry.register(JobFigures(consuming.consumer))

        def stop() -> None:
            consuming.stop()
            relay.relay.stop()

        await stack.enter_async_context(_watching_spot(environment, stop))
        await together(stop, consuming.run(), relay.relay.run())


class JobFigures(Collector):
    """What became of the jobs that this process received."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def collect(self) -> Iterable[Metric]:
        """Two counters."""
        taken = self._consumer.taken
        jobs = CounterMetricFamily(
            "allim_queue_jobs",
            "Jobs received from the queue: stored, replayed (known before) or refused.",
            labels=["result"],
        )
        jobs.add_metric(["stored"], taken.stored)
        jobs.add_metric(["replayed"], taken.replayed)
        jobs.add_metric(["refused"], taken.refused)
        yield jobs
        yield CounterMetricFamily(
            "allim_queue_receives", "Calls that asked the queue for jobs.", value=taken.calls
        )


class _Consuming:
    """A consumer, and the copier of dead letters beside it."""

    def __init__(self, consumer: Consumer, copier: DeadLetterCopier) -> None:
        self.consumer = consumer
        self._copier = copier
        self._copying_ends = asyncio.Event()

    def stop(self) -> None:
        self.consumer.stop()

    async def run(self) -> None:
        copying = asyncio.create_task(self._copier.run(self._copying_ends))
        try:
            await self.consumer.run()
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
