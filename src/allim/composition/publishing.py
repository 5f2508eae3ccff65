"""A relay of events with everything it needs: publishers, routes, dead letters, upkeep."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from allim.base.errors import ConfigurationError, DatabaseUnavailable
from allim.base.settings import Environment
from allim.base.tasks import cancel_and_wait
from allim.composition.foundation import Foundation
from allim.composition.parts import Part
from allim.composition.settings import RelaySettings
from allim.events.encryption import Encryption
from allim.events.publishers.unsealing import Unsealing
from allim.events.relaying.box import OutboxBox
from allim.events.relaying.message import OutboxMessage
from allim.events.relaying.operations import OutboxOperator
from allim.events.relaying.routing import DeadLetterTopics, Routes
from allim.events.relaying.settings import OutboxSettings, parse_routes
from allim.relay.ordered.publisher import Publisher
from allim.relay.ordered.relay import OrderedRelay
from allim.relay.ordered.turns import DeadLetters, Ways

log = logging.getLogger("allim")

FIRST_PRUNE_SECONDS = 60.0
"""Soon after the start: a relay that is restarted every hour prunes, too."""
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
        from allim.events.publishers.kafka_settings import KafkaOptions
        from allim.events.publishers.kafka_transactions import kafka_publisher

        options = KafkaOptions.of(environment)
        if options.settings.kafka_bootstrap_servers is None:
            raise ConfigurationError(
                "EVENTS_ROUTES names kafka, but KAFKA_BOOTSTRAP_SERVERS is not set"
            )
        return kafka_publisher(options)
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


@asynccontextmanager
async def publishing(base: Foundation) -> AsyncIterator[Part]:
    """A relay of events, with its upkeep. Says loudly where they go when nobody was named.

    Raises ConfigurationError.
    """
    environment = base.environment
    settings = environment.read(OutboxSettings)
    if environment.get("KAFKA_BOOTSTRAP_SERVERS") is None and settings.events_routes is None:
        log.warning(
            "events are only written to the log: set KAFKA_BOOTSTRAP_SERVERS or EVENTS_ROUTES"
        )
    async with open_publishers(environment) as opened:
        dead_letters: DeadLetters[OutboxMessage] | None = None
        if settings.outbox_dlq_topic_suffix:
            dead_letters = DeadLetterTopics(
                settings.outbox_dlq_topic_suffix, opened.publishers, opened.routes
            )
        relay = OrderedRelay(
            OutboxBox(base.database, dead_blocks=settings.outbox_on_dead == "block"),
            Ways(opened.publishers, opened.routes, dead_letters),
            wake=base.signal,
            limits=settings.limits(environment.read(RelaySettings).allim_shutdown_seconds),
            observer=base.watch.event_observer(),
        )
        operator = OutboxOperator(base.database)
        retention = settings.outbox_retention_hours * 3600
        upkeep = asyncio.create_task(_prune(operator, retention)) if retention else None
        try:
            yield Part(relay.run, relay.stop)
        finally:
            if upkeep is not None:
                await cancel_and_wait(upkeep)


async def _prune(
    operator: OutboxOperator, retention: float, *, first: float = FIRST_PRUNE_SECONDS
) -> None:
    pause = first
    while True:
        await asyncio.sleep(pause)
        pause = min(PRUNE_SECONDS, max(retention / 10, first))
        try:
            if deleted := await operator.prune(retention):
                log.info("%d events that were sent long ago were deleted", deleted)
        except DatabaseUnavailable:
            pass  # the relay says so
        except Exception:
            # The task's own boundary: what one round met must not end all pruning.
            log.exception("events that were sent long ago were not deleted")
