"""The programs: what each is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from allim.base.logging import LogWriter
from allim.base.settings import Environment
from allim.composition.delivering import delivering
from allim.composition.foundation import Foundation, foundation
from allim.composition.opening import Store
from allim.composition.parts import Part, together
from allim.composition.publishing import publishing
from allim.composition.settings import RelaySettings
from allim.composition.watching import serve_metrics
from allim.composition.ways import listening
from allim.scheduler.settings import SchedulerSettings

# What a program does not need it does not load: a relay alone no web framework, a program
# without a queue no AWS.


async def run_up(store: Store, environment: Environment, writer: LogWriter) -> None:
    """API, relays and scheduler in one process, until a signal."""
    from allim.composition.scheduling import scheduling
    from allim.composition.serving import serving
    from allim.composition.syncing import syncing

    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(foundation(store, environment, writer, "allim"))
        relay = await stack.enter_async_context(delivering(base))
        sync = await stack.enter_async_context(syncing(base))
        parts = [
            await serving(base, sync),
            relay,
            await stack.enter_async_context(publishing(base)),
        ]
        if environment.read(SchedulerSettings).scheduler_enabled:
            parts.append(scheduling(base, sync))
        await stack.enter_async_context(listening(base.database, base.signal, base.wakes))
        await together(*parts)


async def run_api(store: Store, environment: Environment, writer: LogWriter) -> None:
    """The API alone; it never delivers by itself."""
    from allim.composition.serving import serving
    from allim.composition.syncing import syncing

    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(foundation(store, environment, writer, "allim api"))
        sync = await stack.enter_async_context(syncing(base))
        await together(await serving(base, sync))


async def run_relay(
    store: Store,
    environment: Environment,
    writer: LogWriter,
    *,
    channels: Sequence[str] = (),
    deliveries: bool = True,
    events: bool = True,
) -> None:
    """A relay alone: of deliveries, for every channel or some, or of events, or of both."""
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(
            foundation(store, environment, writer, "allim relay")
        )
        await stack.enter_async_context(_metrics(base))
        parts: list[Part] = []
        if deliveries:
            parts.append(await stack.enter_async_context(delivering(base, only=channels)))
        if events:
            parts.append(await stack.enter_async_context(publishing(base)))
        await stack.enter_async_context(listening(base.database, base.signal, base.wakes))
        await together(*parts)


async def run_scheduler(store: Store, environment: Environment, writer: LogWriter) -> None:
    """The scheduler alone, whatever SCHEDULER_ENABLED says; relays elsewhere deliver."""
    from allim.composition.scheduling import scheduling
    from allim.composition.syncing import syncing

    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(
            foundation(store, environment, writer, "allim schedule")
        )
        await stack.enter_async_context(_metrics(base))
        sync = await stack.enter_async_context(syncing(base))
        await together(scheduling(base, sync))


async def run_consume(store: Store, environment: Environment, writer: LogWriter) -> None:
    """From the queue into the box; relays elsewhere deliver."""
    from allim.composition.consuming import consuming, watching_spot

    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(
            foundation(store, environment, writer, "allim consume")
        )
        await stack.enter_async_context(_metrics(base))
        consumer = await stack.enter_async_context(consuming(base))
        await stack.enter_async_context(watching_spot(environment, consumer))
        await together(consumer)


async def run_messaging_worker(
    store: Store, environment: Environment, writer: LogWriter, *, channels: Sequence[str] = ()
) -> None:
    """From the queue to the customer in one process."""
    from allim.composition.consuming import consuming, watching_spot

    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(
            foundation(store, environment, writer, "allim messaging-worker")
        )
        await stack.enter_async_context(_metrics(base))
        relay = await stack.enter_async_context(delivering(base, only=channels))
        consumer = await stack.enter_async_context(consuming(base))
        await stack.enter_async_context(watching_spot(environment, consumer, relay))
        await stack.enter_async_context(listening(base.database, base.signal, base.wakes))
        await together(consumer, relay)


@asynccontextmanager
async def _metrics(base: Foundation) -> AsyncIterator[None]:
    """Metrics and health of a program without the API, where a port for them is set."""
    settings = base.environment.read(RelaySettings)
    host, port = settings.allim_relay_metrics_host, settings.allim_relay_metrics_port
    if port is None:
        yield
        return
    async with serve_metrics(host, port, base.watch.registry, base.database):
        yield
