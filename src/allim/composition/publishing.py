"""A relay of events with everything it needs: publishers, routes, dead letters, upkeep."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from allim.base.errors import ConfigurationError, DatabaseUnavailable
from allim.base.settings import Environment
from allim.base.tasks import cancel_and_wait
from allim.composition.settings import RelaySettings
from allim.database.pool import Database
from allim.events.encryption import Encryption
from allim.events.publishers.unsealing import Unsealing
from allim.events.relaying.box import OutboxBox
from allim.events.relaying.message import OutboxMessage
from allim.events.relaying.operations import OutboxOperator
from allim.events.relaying.routing import DeadLetterTopics, Routes
from allim.events.relaying.settings import OutboxSettings, parse_routes
from allim.relay.ordered.observer import OrderedObserver
from allim.relay.ordered.publisher import Publisher
from allim.relay.ordered.relay import OrderedRelay
from allim.relay.ordered.turns import DeadLetters, Ways
from allim.relay.wake import WakeSignal

log = logging.getLogger("allim")

PRUNE_SECONDS = 3600.0
DEFAULT_REGION = "ap-northeast-2"


@dataclass(frozen=True, slots=True)
class Publishing:
    """The publishers of this process by name, and which topics go to which."""

    publishers: Mapping[str, Unsealing]
    routes: Routes


@asynccontextmanager
async def open_publishers(
    environment: Environment, *, print_line: Callable[[str], None] | None = None
) -> AsyncIterator[Publishing]:
    """Every publisher that a route names; closed at the end. Raises ConfigurationError."""
    kafka = environment.get("KAFKA_BOOTSTRAP_SERVERS")
    routes = parse_routes(
        environment.read(OutboxSettings).events_routes, "kafka" if kafka else "log"
    )
    keys = Encryption.of(environment).keys
    made: dict[str, Unsealing] = {}
    named: list[tuple[str, str]] = []
    for pattern, target in routes:
        publisher = Unsealing(_publisher(target, environment, print_line), keys)
        named.append((pattern, publisher.name))
        made.setdefault(publisher.name, publisher)
        if pattern == "*":
            break  # what comes after it is never reached
    try:
        yield Publishing(made, Routes(named))
    finally:
        for publisher in made.values():
            await publisher.close()


def _publisher(
    target: str, environment: Environment, print_line: Callable[[str], None] | None
) -> Publisher[OutboxMessage]:
    # Each only where it is used: none of them costs who does without.
    if target == "kafka":
        from allim.events.publishers.kafka import KafkaPublisher
        from allim.events.publishers.kafka_settings import KafkaOptions

        options = KafkaOptions.of(environment)
        if options.settings.kafka_bootstrap_servers is None:
            raise ConfigurationError(
                "EVENTS_ROUTES names kafka, but KAFKA_BOOTSTRAP_SERVERS is not set"
            )
        return KafkaPublisher(options)
    if target.startswith("sqs:"):
        from allim.events.publishers.sqs import SqsPublisher

        credentials = {
            name: value
            for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
            if (value := environment.get(name.upper())) is not None
        }
        return SqsPublisher(
            target.removeprefix("sqs:"),
            region=environment.get("AWS_REGION") or DEFAULT_REGION,
            endpoint_url=environment.get("AWS_ENDPOINT_URL"),
            **credentials,
        )
    from allim.events.publishers.log import LogPublisher

    return LogPublisher() if print_line is None else LogPublisher(print_line)


class EventRelay:
    """The relay of events of one process, with its upkeep."""

    def __init__(
        self, relay: OrderedRelay[OutboxMessage], operator: OutboxOperator, retention: float
    ) -> None:
        self._relay = relay
        self._operator = operator
        self._retention = retention

    async def run(self) -> None:
        """Run until `stop`."""
        upkeep = asyncio.create_task(self._prune()) if self._retention else None
        try:
            await self._relay.run()
        finally:
            if upkeep is not None:
                await cancel_and_wait(upkeep)

    def stop(self) -> None:
        """End what is in flight, then let `run` return."""
        self._relay.stop()

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            with contextlib.suppress(DatabaseUnavailable):
                if deleted := await self._operator.prune(self._retention):
                    log.info("%d events that were sent long ago were deleted", deleted)


def make_event_relay(
    database: Database,
    publishing: Publishing,
    environment: Environment,
    *,
    signal: WakeSignal,
    observer: OrderedObserver,
) -> EventRelay:
    """A relay of events. Says loudly where they go when nobody was named."""
    settings = environment.read(OutboxSettings)
    dead_letters: DeadLetters[OutboxMessage] | None = None
    if settings.outbox_dlq_topic_suffix:
        dead_letters = DeadLetterTopics(
            settings.outbox_dlq_topic_suffix, publishing.publishers, publishing.routes
        )
    if environment.get("KAFKA_BOOTSTRAP_SERVERS") is None and settings.events_routes is None:
        log.warning(
            "events are only written to the log: set KAFKA_BOOTSTRAP_SERVERS or EVENTS_ROUTES"
        )
    relay = OrderedRelay(
        OutboxBox(database, dead_blocks=settings.outbox_on_dead == "block"),
        Ways(publishing.publishers, publishing.routes, dead_letters),
        wake=signal,
        limits=settings.limits(environment.read(RelaySettings).allim_shutdown_seconds),
        observer=observer,
    )
    return EventRelay(relay, OutboxOperator(database), settings.outbox_retention_hours * 3600)
