"""The programs: API, relay, and both in one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

from allim.base.logging import LogWriter
from allim.base.settings import Environment
from allim.channels.channel import Message
from allim.composition.delivering import Wakes, Ways, listening, make_relay, open_channels
from allim.composition.opening import Store, connected
from allim.composition.reporting import taking_in_reports
from allim.composition.settings import RelaySettings
from allim.composition.stopping import stopping
from allim.composition.watching import Watch, serve_metrics
from allim.database.pool import Database
from allim.database.wakes import Waker
from allim.messaging.policies import messaging_policies
from allim.relay.relay import Relay
from allim.relay.wake import WakeSignal
from allim.web.settings import AccessSettings

log = logging.getLogger("allim")

Stop = Callable[[], None]


async def run_up(store: Store, environment: Environment, writer: LogWriter) -> None:
    """API and relay in one process, until a signal."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected(store, environment, "allim"))
        signal = WakeSignal()
        wakes = Wakes(await stack.enter_async_context(Waker(database)), signal)
        ways = await stack.enter_async_context(open_channels(database, environment))
        watch = await stack.enter_async_context(Watch(database, ways.channels, writer))
        server, serve = await _api(database, ways, environment, wakes, watch.registry)
        rules = await stack.enter_async_context(
            messaging_policies(database, ways.channels, environment)
        )
        relay = make_relay(
            database,
            ways,
            environment,
            rules=rules,
            signal=signal,
            wakes=wakes,
            observe=watch.observer,
        )
        await stack.enter_async_context(
            taking_in_reports(database, ways.channels, environment, signal, wakes)
        )
        await stack.enter_async_context(listening(database, signal, wakes))

        def stop() -> None:
            relay.stop()
            server()

        await together(stop, serve(), relay.run())


async def run_api(store: Store, environment: Environment, writer: LogWriter) -> None:
    """The API alone; it never delivers."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected(store, environment, "allim api"))
        wakes = Wakes(await stack.enter_async_context(Waker(database)))
        ways = await stack.enter_async_context(open_channels(database, environment))
        watch = await stack.enter_async_context(Watch(database, ways.channels, writer))
        stop, serve = await _api(database, ways, environment, wakes, watch.registry)
        await together(stop, serve())


@dataclass(frozen=True, slots=True)
class Relaying:
    """A relay that is ready to run, and what it stands on."""

    database: Database
    ways: Ways
    wakes: Wakes
    relay: Relay[Message]
    registry: CollectorRegistry


async def run_relay(
    store: Store, environment: Environment, writer: LogWriter, *, channels: Sequence[str] = ()
) -> None:
    """A relay alone, for every channel or some."""
    async with relaying(store, environment, writer, "allim relay", channels=channels) as ready:
        await together(ready.relay.stop, ready.relay.run())


@asynccontextmanager
async def relaying(
    store: Store,
    environment: Environment,
    writer: LogWriter,
    name: str,
    *,
    channels: Sequence[str] = (),
) -> AsyncIterator[Relaying]:
    """A relay with all that it needs, for every channel or some; `name` is the program's."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected(store, environment, name))
        signal = WakeSignal()
        wakes = Wakes(await stack.enter_async_context(Waker(database)), signal)
        ways = await stack.enter_async_context(open_channels(database, environment))
        watch = await stack.enter_async_context(Watch(database, ways.channels, writer))
        await stack.enter_async_context(showing(environment, watch.registry, database))
        rules = await stack.enter_async_context(
            messaging_policies(database, ways.channels, environment)
        )
        relay = make_relay(
            database,
            ways,
            environment,
            rules=rules,
            signal=signal,
            wakes=wakes,
            observe=watch.observer,
            only=channels,
        )
        await stack.enter_async_context(
            taking_in_reports(database, ways.channels, environment, signal, wakes)
        )
        await stack.enter_async_context(listening(database, signal, wakes))
        yield Relaying(database, ways, wakes, relay, watch.registry)


@asynccontextmanager
async def showing(
    environment: Environment, registry: CollectorRegistry, database: Database
) -> AsyncIterator[None]:
    """The small port for metrics and health, where the settings ask for one."""
    settings = environment.read(RelaySettings)
    if settings.allim_relay_metrics_port is None:
        yield
        return
    host, port = settings.allim_relay_metrics_host, settings.allim_relay_metrics_port
    async with serve_metrics(host, port, registry, database):
        yield


async def _api(
    database: Database,
    ways: Ways,
    environment: Environment,
    wakes: Wakes,
    registry: CollectorRegistry,
) -> tuple[Stop, Callable[[], Awaitable[None]]]:
    """The server, its port taken; how it is stopped, and what runs it."""
    # Only here: a relay alone loads no web framework.
    from allim.app import create_app
    from allim.composition.serving import HttpServer, bind, url_of
    from allim.web.access import refuse_open_bind
    from allim.web.keys import keys_exist

    settings = environment.read(AccessSettings)
    refuse_open_bind(settings.allim_host, await keys_exist(database, environment))
    app = create_app(
        database,
        ways.channels,
        environment,
        on_commit=wakes,
        registry=registry,
        endpoints=ways.endpoints,
    )
    listener = bind(settings.allim_host, settings.allim_port)
    server = HttpServer(app)

    async def serve() -> None:
        url = url_of(listener)
        log.info("listening on %s (API documentation at %s/docs)", url, url)
        try:
            await server.serve(sockets=[listener])
        finally:
            listener.close()

    return server.stop, serve


async def together(stop: Stop, *programs: Awaitable[None]) -> None:
    """Run programs until one ends or a signal comes; then stop all, and wait for them."""
    tasks = [asyncio.ensure_future(program) for program in programs]
    with stopping(stop):
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            stop()
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=2.0)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()


def run(program: Coroutine[Any, Any, None]) -> None:
    """Run a program to its end on the fast event loop."""
    import uvloop

    uvloop.run(program)
