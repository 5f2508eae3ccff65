"""The ways out of a process (its channels), and the wakes between processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.channels.registry import close_channels, make_channels, make_http, make_services
from allim.database.pool import Database
from allim.database.wakes import Listener, Waker
from allim.hub.endpoints import EndpointBook
from allim.relay.wake import WakeSignal


@dataclass(frozen=True, slots=True)
class Ways:
    """The channels of this process, and what is known of their targets."""

    channels: Mapping[str, Channel]
    endpoints: EndpointBook


@asynccontextmanager
async def open_channels(
    database: Database,
    environment: Environment,
    *,
    print_line: Callable[[str], None] | None = None,
) -> AsyncIterator[Ways]:
    """Every channel; closed at the end, the HTTP client last."""
    endpoints = EndpointBook(database)
    http = make_http(environment)
    try:
        services = make_services(http, secrets_for=endpoints.secrets_for, print_line=print_line)
        channels = make_channels(environment, services)
        try:
            yield Ways(channels, endpoints)
        finally:
            await close_channels(channels)
    finally:
        await http.close()


class Wakes:
    """Tells lanes that there is work: those of this process at once, other processes after."""

    def __init__(self, waker: Waker, signal: WakeSignal | None = None) -> None:
        self.name = waker.name
        self._waker = waker
        self._signal = signal

    def __call__(self, lanes: Collection[str]) -> None:
        """Wake lanes; called after a commit, on the event loop."""
        if self._signal is not None:
            self._signal.wake(lanes)
        self._waker.wake(lanes)


@asynccontextmanager
async def listening(database: Database, signal: WakeSignal, own: Wakes) -> AsyncIterator[None]:
    """Hear wakes of other processes."""

    def on_listening(heard: bool) -> None:
        signal.listening = heard
        if heard:
            signal.wake_all()

    async with Listener(database, signal.wake, on_listening, but_not=own.name):
        yield
