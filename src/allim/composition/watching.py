"""What a process shows of itself: metrics, lines and spans; and a small port for a lone relay."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Self

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from allim.base.errors import ConfigurationError, DatabaseUnavailable
from allim.base.logging import LogWriter
from allim.channels.channel import Channel
from allim.composition.recording import Recorder
from allim.database.pool import Database
from allim.enrolment.figures import SyncFigures
from allim.events.relaying.figures import OutboxFigures
from allim.events.relaying.telemetry import EventTelemetry
from allim.hub.delivery_box import DeliveryBox
from allim.relay.backlog import BacklogFigures
from allim.relay.observer import Observer
from allim.relay.ordered.observer import OrderedObserver
from allim.relay.several import SeveralObservers, SeveralOrderedObservers
from allim.relay.tally import EVENTS, DeliveryTally, EventTally, Tally
from allim.relay.telemetry import RelayTelemetry

log = logging.getLogger("allim")

REQUEST_SECONDS = 5.0
READY_SECONDS = 3.0


class Watch:
    """The metrics of one process, and the observers that feed them."""

    def __init__(
        self, database: Database, channels: Mapping[str, Channel], writer: LogWriter, worker: str
    ) -> None:
        self.registry = CollectorRegistry()
        self._writer = writer
        self._observers: dict[str, Observer] = {}
        self._tally = Tally()
        self._recorder = Recorder(database, self._tally, worker)
        outbox = OutboxFigures(database)
        syncs = SyncFigures(database)
        self._backlog = BacklogFigures(
            {"delivery": DeliveryBox(database), "outbox": outbox, "enrolment": syncs}
        )
        self.registry.register(self._backlog)
        self.registry.register(syncs)
        self.registry.register(_More(outbox))
        self.registry.register(_ChannelModes(channels))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def observer(self, worker: str) -> Observer:
        """The observer for whatever delivers in this process under one name."""
        if worker not in self._observers:
            telemetry = RelayTelemetry(worker, self._writer)
            self._observers[worker] = SeveralObservers(telemetry, DeliveryTally(self._tally))
            self.registry.register(telemetry)
        return self._observers[worker]

    def event_observer(self) -> OrderedObserver:
        """An observer for a relay of events of this process."""
        telemetry = EventTelemetry()
        self.registry.register(telemetry)
        self.relays([EVENTS])
        return SeveralOrderedObservers(telemetry, EventTally(self._tally))

    def relays(self, lanes: Iterable[str]) -> None:
        """This process has relays for these lanes, and is shown among those alive."""
        self._tally.lanes.update(lanes)

    async def __aenter__(self) -> Self:
        await self._backlog.__aenter__()
        await self._recorder.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._recorder.__aexit__(*exc)
        await self._backlog.__aexit__(*exc)


class _More(Collector):
    """What is read with the backlog of the outbox."""

    def __init__(self, outbox: OutboxFigures) -> None:
        self._outbox = outbox

    def collect(self) -> Iterable[Metric]:
        """The figures as they were last read."""
        return self._outbox.more()


class _ChannelModes(Collector):
    """Which channels really call somebody: success without a call is never silent."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = channels

    def collect(self) -> Iterable[Metric]:
        """One gauge for each channel, and one for the version."""
        modes = GaugeMetricFamily(
            "allim_channel_mode",
            "How a channel is set up (1): live, mock or not_configured.",
            labels=["channel", "mode"],
        )
        for name, channel in self._channels.items():
            modes.add_metric([name, channel.configured().mode], 1.0)
        yield modes
        build = GaugeMetricFamily("allim_build", "The version (1).", labels=["version"])
        build.add_metric([version("allim")], 1.0)
        yield build


@asynccontextmanager
async def serve_metrics(
    host: str, port: int, registry: CollectorRegistry, database: Database
) -> AsyncIterator[None]:
    """Answer GET /metrics, /health/live and /health/ready, and nothing else.

    Raises ConfigurationError where the port cannot be had.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                method, path = head.split(b" ", 2)[:2]
                status, kind, body = await _page(method, path, registry, database)
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(answer, host.strip("[]"), port, limit=16 * 1024)
    except OSError as error:
        raise ConfigurationError(
            f"ALLIM_RELAY_METRICS_PORT: cannot listen on {host}:{port}: {error.strerror or error}"
        ) from None
    async with server:
        bound = server.sockets[0].getsockname()[1]
        log.info("metrics on http://%s:%s/metrics", host, bound)
        yield


async def _page(
    method: bytes, path: bytes, registry: CollectorRegistry, database: Database
) -> tuple[str, str, bytes]:
    if method != b"GET":
        return "405 Method Not Allowed", "text/plain", b"GET only\n"
    if path == b"/metrics":
        return "200 OK", CONTENT_TYPE_LATEST, generate_latest(registry)
    if path == b"/health/live":
        return "200 OK", "application/json", b'{"status":"ok"}\n'
    if path == b"/health/ready":
        try:
            async with asyncio.timeout(READY_SECONDS):
                await database.fetch("SELECT 1")
        except (DatabaseUnavailable, TimeoutError):
            return "503 Service Unavailable", "application/json", b'{"status":"no database"}\n'
        return "200 OK", "application/json", b'{"status":"ok"}\n'
    return "404 Not Found", "text/plain", b"/metrics, /health/live or /health/ready\n"
