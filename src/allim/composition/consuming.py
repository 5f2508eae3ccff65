"""Taking jobs from the queue, and dead letters to its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.base.tasks import cancel_and_wait
from allim.composition.foundation import Foundation
from allim.composition.parts import Part
from allim.messaging.consumer import Consumer
from allim.messaging.dead_letters import DeadLetterCopier
from allim.messaging.intake import Intake
from allim.messaging.queue import QueueError, find_queue, sqs_client
from allim.messaging.settings import QueueSettings
from allim.messaging.spot import watch_spot


@asynccontextmanager
async def consuming(base: Foundation) -> AsyncIterator[Part]:
    """Takes jobs from the queue, and copies dead letters to its own.

    Raises ConfigurationError where there is no such queue, or it cannot be reached.
    """
    settings = base.environment.read(QueueSettings)
    async with sqs_client(settings) as client:
        try:
            queue = await find_queue(client, settings.messaging_sqs_queue_name)
            dead_letters = await find_queue(client, settings.dead_letter_queue_name)
        except QueueError as error:
            raise ConfigurationError(str(error)) from error
        intake = Intake(base.database, base.channels, base.environment, base.wakes)
        consumer = Consumer(queue, base.database, intake, settings)
        base.watch.registry.register(_JobFigures(consumer))
        both = _Consuming(consumer, DeadLetterCopier(base.database, dead_letters))
        yield Part(both.run, both.stop)


@asynccontextmanager
async def watching_spot(environment: Environment, *parts: Part) -> AsyncIterator[None]:
    """Stop these parts when the machine is about to be taken away, where that is watched for."""
    settings = environment.read(QueueSettings)
    if not settings.messaging_spot_watch:
        yield
        return

    def stop() -> None:
        for part in parts:
            part.stop()

    watching = asyncio.create_task(watch_spot(settings.messaging_imds_url.rstrip("/"), stop))
    try:
        yield
    finally:
        await cancel_and_wait(watching)


class _JobFigures(Collector):
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
