"""The programs: API, relay, and both in one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from allim.base.logging import LogWriter
from allim.base.settings import Environment
from allim.composition.delivering import (
    Wakes,
    Ways,
    listening,
    make_passes,
    make_relay,
    open_channels,
    replaying,
)
from allim.composition.opening import Store, connected
from allim.composition.settings import RelaySettings
from allim.composition.stopping import stopping
from allim.composition.watching import Watch, serve_metrics
from allim.database.pool import Database
from allim.database.wakes import Waker
from allim.relay.relay import worker_name
from allim.relay.wake import WakeSignal
from allim.scheduler.settings import SchedulerSettings
from allim.web.settings import AccessSettings

if TYPE_CHECKING:
    from allim.enrolment.dispatch import RunPass
    from allim.enrolment.sync import EnrolmentSync

log = logging.getLogger("allim")

Stop = Callable[[], None]


async def run_up(store: Store, environment: Environment, writer: LogWriter) -> None:
    """API, relay and scheduler in one process, until a signal."""
    # Only where they are needed: a relay alone loads none of it.
    from allim.composition.scheduling import LANE, make_scheduler
    from allim.composition.syncing import open_sync

    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected(store, environment, "allim"))
        signal = WakeSignal()
        wakes = Wakes(await stack.enter_async_context(Waker(database)), signal)
        ways = await stack.enter_async_context(open_channels(database, environment))
        watch = await stack.enter_async_context(Watch(database, ways.channels, writer))
        relay = make_relay(
            database, ways, environment, signal=signal, wakes=wakes, observe=watch.observer
        )
        sync = await stack.enter_async_context(
            open_sync(database, ways.channels, environment, on_commit=wakes)
        )
        server, serve = await _api(database, ways, environment, wakes, watch, relay.worker, sync)
        await stack.enter_async_context(listening(database, signal, wakes))
        await stack.enter_async_context(replaying(database, signal, wakes))
        stops, programs = [relay.stop, server], [serve(), relay.run()]
        if environment.read(SchedulerSettings).scheduler_enabled:
            scheduler = make_scheduler(
                database,
                environment,
                sync=sync,
                run_pass=_passes(database, ways, environment, wakes, watch, relay.worker),
                worker=relay.worker,
                wake=signal.event(LANE),
            )
            stops.append(scheduler.stop)
            programs.append(scheduler.run())

        def stop() -> None:
            for each in stops:
                each()

        await _together(stop, *programs)


async def run_api(store: Store, environment: Environment, writer: LogWriter) -> None:
    """The API alone; it never delivers by itself."""
    from allim.composition.syncing import open_sync

    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected(store, environment, "allim api"))
        wakes = Wakes(await stack.enter_async_context(Waker(database)))
        ways = await stack.enter_async_context(open_channels(database, environment))
        watch = await stack.enter_async_context(Watch(database, ways.channels, writer))
        sync = await stack.enter_async_context(
            open_sync(database, ways.channels, environment, on_commit=wakes)
        )
        stop, serve = await _api(database, ways, environment, wakes, watch, worker_name(), sync)
        await _together(stop, serve())


async def run_relay(
    store: Store, environment: Environment, writer: LogWriter, *, channels: Sequence[str] = ()
) -> None:
    """A relay alone, for every channel or some."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected(store, environment, "allim relay"))
        signal = WakeSignal()
        wakes = Wakes(await stack.enter_async_context(Waker(database)), signal)
        ways = await stack.enter_async_context(open_channels(database, environment))
        watch = await stack.enter_async_context(Watch(database, ways.channels, writer))
        settings = environment.read(RelaySettings)
        if settings.allim_relay_metrics_port is not None:
            await stack.enter_async_context(
                serve_metrics(
                    settings.allim_relay_metrics_host,
                    settings.allim_relay_metrics_port,
                    watch.registry,
                    database,
                )
            )
        relay = make_relay(
            database,
            ways,
            environment,
            signal=signal,
            wakes=wakes,
            observe=watch.observer,
            only=channels,
        )
        await stack.enter_async_context(listening(database, signal, wakes))
        await stack.enter_async_context(replaying(database, signal, wakes))
        await _together(relay.stop, relay.run())


async def run_scheduler(store: Store, environment: Environment, writer: LogWriter) -> None:
    """The scheduler alone, whatever SCHEDULER_ENABLED says; relays elsewhere deliver."""
    from allim.composition.scheduling import make_scheduler
    from allim.composition.syncing import open_sync

    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected(store, environment, "allim schedule"))
        wakes = Wakes(await stack.enter_async_context(Waker(database)))
        ways = await stack.enter_async_context(open_channels(database, environment))
        watch = await stack.enter_async_context(Watch(database, ways.channels, writer))
        sync = await stack.enter_async_context(
            open_sync(database, ways.channels, environment, on_commit=wakes)
        )
        worker = worker_name()
        scheduler = make_scheduler(
            database,
            environment,
            sync=sync,
            run_pass=_passes(database, ways, environment, wakes, watch, worker),
            worker=worker,
            wake=asyncio.Event(),
        )
        await _together(scheduler.stop, scheduler.run())


def _passes(
    database: Database,
    ways: Ways,
    environment: Environment,
    wakes: Wakes,
    watch: Watch,
    worker: str,
) -> RunPass:
    observer = watch.observer(worker)
    return make_passes(database, ways, environment, wakes=wakes, observer=observer, worker=worker)


async def _api(
    database: Database,
    ways: Ways,
    environment: Environment,
    wakes: Wakes,
    watch: Watch,
    worker: str,
    sync: EnrolmentSync | None,
) -> tuple[Stop, Callable[[], Awaitable[None]]]:
    """The server, its port taken; how it is stopped, and what runs it."""
    # Only here: a relay alone loads no web framework.
    from allim.app import create_app
    from allim.composition.scheduling import LANE
    from allim.composition.serving import HttpServer, bind, url_of
    from allim.enrolment.calls import SyncCalls
    from allim.web.access import refuse_open_bind
    from allim.web.keys import keys_exist

    settings = environment.read(AccessSettings)
    refuse_open_bind(settings.allim_host, await keys_exist(database, environment))
    sync_calls = SyncCalls(sync)
    app = create_app(
        database,
        ways.channels,
        environment,
        on_commit=wakes,
        registry=watch.registry,
        endpoints=ways.endpoints,
        run_pass=_passes(database, ways, environment, wakes, watch, worker),
        sync_calls=sync_calls,
        wake_scheduler=lambda: wakes({LANE}),
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

    def stop() -> None:
        sync_calls.stop()
        server.stop()

    return stop, serve


async def _together(stop: Stop, *programs: Awaitable[None]) -> None:
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
