"""Kafka: idempotent, in order, and never one message ahead of the one before it in its line.

librdkafka's guarantee against gaps leaves out messages that time out one by one, so none does:
when nothing arrives for KAFKA_DELIVERY_TIMEOUT_MS the producer as a whole is given up and built
anew, and the relay begins again with what was not acknowledged. The same follows an error that
is fatal for the producer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from allim.events.publishers.headers import headers_of
from allim.events.publishers.kafka_client import PURGE_SECONDS, Handover, KafkaClient, make_producer
from allim.events.publishers.kafka_settings import KafkaOptions
from allim.events.publishers.kafka_topics import CREATION_SECONDS, Topics
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.message import Line
from allim.relay.ordered.publisher import DELIVERED, NOT_HAD, NOT_TRIED, MaySend
from allim.relay.outcomes import Outcome

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

log = logging.getLogger("allim.events.kafka")

NAME = "kafka"
WAIT_SECONDS = 0.2
ROOM_SECONDS = 0.005
TOPIC_SECONDS = 10.0
DIAGNOSE_SECONDS = 10.0

TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD"})
"""A broker refuses the whole request for one message in it."""
UNKNOWN_TOPIC = frozenset(
    {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID"}
)
LEADERLESS = "LEADER_NOT_AVAILABLE"
"""It is there, and will have a leader in a moment; librdkafka waits for that."""
UNAUTHORIZED = frozenset({"TOPIC_AUTHORIZATION_FAILED"})
IMPOSSIBLE = frozenset({"TOPIC_EXCEPTION", "_INVALID_ARG", "INVALID_MSG"})


class KafkaPublisher:
    """Publishes to Kafka. The message's key is the record's, its topic the record's.

    Raises ConfigurationError for options that no producer takes.
    """

    name = NAME

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._configuration = options.for_librdkafka()
        settings = options.settings
        self._delivery_timeout = settings.kafka_delivery_timeout_ms / 1000
        self._block = settings.kafka_max_block_ms / 1000
        self._client: KafkaClient | None = None
        self._topics = Topics(patience=min(self._block, CREATION_SECONDS))
        self._young_turn = asyncio.Lock()
        """Of all turns one at a time publishes to young topics."""
        make_producer(self._configuration)  # says what is wrong with it now, and not hours later

    def begin(self, relay: str) -> None:
        """An idempotent producer has no name that outlives it."""

    async def fence(self, relay: str) -> None:
        """Without transactions the broker knows no fence."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        """Publish a batch; waits until every message is acknowledged or known not to be."""
        topics = {message.topic for message in batch}
        outcomes: list[Outcome] = [NOT_TRIED] * len(batch)
        try:
            client = await self._usable_client()
            unknown = await self._unknown_topics(client, topics)
            young = {topic for topic in topics if self._topics.is_young(topic)}
            if topics - young:
                outcomes = await self._hand_over(client, batch, unknown, may_send, without=young)
        except Unreachable as error:
            return [Outcome.fault("broker_unavailable", str(error))] * len(batch)
        suspects = [place for place, outcome in enumerate(outcomes) if outcome is SUSPECT]
        if suspects:
            # A request was refused for one message in it: which one is seen when each goes alone.
            await self._one_by_one(batch, outcomes, suspects, may_send)
        if young and not any(outcome.kind in NOT_HAD for outcome in outcomes):
            places = [place for place, message in enumerate(batch) if message.topic in young]
            async with self._young_turn:
                await self._one_by_one(batch, outcomes, places, may_send)
        return outcomes

    async def purge(self) -> None:
        """Let go of nothing more of what was handed over; a new producer is built when needed."""
        client, self._client = self._client, None
        if client is not None:
            client.abandon("purged")
            await client.close()

    async def close(self) -> None:
        """End the producer. What is in it still was not acknowledged, and is sent again."""
        await self.purge()

    async def diagnose(self) -> str | None:
        """Ask the brokers who they are."""
        producer = make_producer({**self._configuration, "log_level": 0})
        try:
            await asyncio.to_thread(producer.list_topics, timeout=DIAGNOSE_SECONDS)
        except Exception as error:
            # The library's boundary: whatever it raises is the finding.
            servers = self._options.settings.kafka_bootstrap_servers
            return f"no broker of {servers} answers: {words_of(error)}"
        return None

    async def _usable_client(self) -> KafkaClient:
        if self._client is None or self._client.broken is not None:
            if self._client is not None:
                self._client.abandon("replaced")
            self._client = KafkaClient(self._configuration)
        return self._client

    async def _unknown_topics(
        self, client: KafkaClient, topics: Collection[str]
    ) -> dict[str, Outcome]:
        """What is wrong with topics; asked once of each that is there, so that nothing waits long.

        Raises Unreachable where nobody answers.
        """
        asked = self._topics.unknown(topics)
        errors = {topic: await self._ask(client, topic) for topic in asked}
        may_come = [topic for topic in asked if _may_come(errors[topic])]
        if any(self._topics.is_new(topic) for topic in may_come):
            # Where brokers create topics themselves, asking has done it.
            await asyncio.sleep(WAIT_SECONDS)
            errors.update({topic: await self._ask(client, topic) for topic in may_come})
        found: dict[str, Outcome] = {}
        for topic, error in errors.items():
            if error is None or error.name() == LEADERLESS:
                self._topics.found(topic, just_made=topic in may_come)
            else:
                found[topic] = self._outcome(topic, error)
        return found

    async def _ask(self, client: KafkaClient, topic: str) -> KafkaError | None:
        try:
            seconds = min(self._block, TOPIC_SECONDS)
            return await asyncio.to_thread(client.topic_error, topic, seconds)
        except Exception as error:
            # The library's boundary: it raises where no broker answers in time.
            raise Unreachable(words_of(error)) from error

    async def _hand_over(
        self,
        client: KafkaClient,
        batch: Sequence[OutboxMessage],
        unknown: dict[str, Outcome],
        may_send: MaySend,
        *,
        without: Collection[str] = (),
    ) -> list[Outcome]:
        self._begin(client)
        outcomes: list[Outcome] = [NOT_TRIED] * len(batch)
        stopped: set[Line | None] = set()
        handover = Handover(len(batch))
        handed = 0
        for place, message in enumerate(batch):
            if (stopped and message.line in stopped) or message.topic in without:
                continue
            if not may_send():
                break
            refused = unknown.get(message.topic)
            if refused is None:
                refused = await self._produce(client, handover, place, message)
            if refused is None:
                handed += 1
                continue
            outcomes[place] = refused
            if message.line is not None:
                stopped.add(message.line)
            if client.broken is not None:
                break
        handover.handed(handed)
        await self._wait(client, handover)
        self._read(client, batch, handover, outcomes)
        await self._finish(client, handover, outcomes, may_send)
        return outcomes

    def _begin(self, client: KafkaClient) -> None:
        """Before anything of a batch is handed over."""

    async def _finish(
        self,
        client: KafkaClient,
        handover: Handover,
        outcomes: list[Outcome],
        may_send: MaySend,
    ) -> None:
        """Once everything that was handed over is reported."""

    async def _produce(
        self, client: KafkaClient, handover: Handover, place: int, message: OutboxMessage
    ) -> Outcome | None:
        """Hand one over, waiting for room; an outcome where it was not taken."""
        headers = [(name, value.encode()) for name, value in headers_of(message).items()]
        deadline = time.monotonic() + self._block
        while True:
            try:
                client.produce(
                    handover,
                    place,
                    topic=message.topic,
                    key=message.key,
                    value=message.payload,
                    headers=headers,
                )
                return None
            except BufferError:
                if time.monotonic() > deadline or client.broken is not None:
                    return Outcome.fault("buffer_full", "the producer's buffer stays full")
                await asyncio.sleep(ROOM_SECONDS)
            except Exception as error:
                # The library's boundary: KafkaException for what it can't take.
                return self._refusal(message, error)

    def _refusal(self, message: OutboxMessage, error: Exception) -> Outcome:
        said: Any = error.args[0] if error.args else None
        if not hasattr(said, "name"):
            return Outcome.fault("internal_error", words_of(error))
        if said.name() in TOO_LARGE:
            return Outcome.refused("too_large", f"{said.str()} ({len(message.payload):,} bytes)")
        return self._outcome(message.topic, said)

    def _outcome(self, topic: str, error: KafkaError) -> Outcome:
        """What an error about a topic, or about a message for it, means."""
        name, words = error.name(), error.str()
        if name in UNKNOWN_TOPIC:
            return self._topics.missing(topic, words)
        if name in UNAUTHORIZED:
            return Outcome.retry("unauthorized", words)
        if name in IMPOSSIBLE:
            return Outcome.refused("impossible", words)
        return Outcome.fault("broker_failed", words)

    async def _wait(self, client: KafkaClient, handover: Handover) -> None:
        """Until all is reported. Gives up the producer when nothing arrives any more."""
        while not handover.done.is_set():
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await handover.done.wait()
            except TimeoutError:
                silent = time.monotonic() - max(client.last_arrival, handover.began)
                if client.broken is None and silent < self._delivery_timeout:
                    continue
                client.abandon(f"nothing was acknowledged for {silent:.0f} s", brokers_failed=True)
                try:
                    async with asyncio.timeout(PURGE_SECONDS):
                        await handover.done.wait()
                except TimeoutError:
                    log.warning("a producer that was given up does not report on all it had")
                return

    def _read(
        self,
        client: KafkaClient,
        batch: Sequence[OutboxMessage],
        handover: Handover,
        outcomes: list[Outcome],
    ) -> None:
        """From reports to outcomes. Where a message broke the producer, the rest was not tried."""
        failed = False
        lost: list[int] = []
        for place, error in list(handover.reports.items()):
            if error is None:
                outcomes[place] = DELIVERED
                continue
            name = error.name()
            if name in TOO_LARGE:
                outcomes[place] = SUSPECT
                failed = True
            elif name in UNKNOWN_TOPIC | UNAUTHORIZED | IMPOSSIBLE:
                outcomes[place] = self._outcome(batch[place].topic, error)
                failed = True
            else:
                lost.append(place)
        if client.broken is not None and (failed or not client.brokers_failed):
            return
        if client.broken is not None:
            fault = Outcome.fault("broker_unavailable", client.broken)
            unreported = [
                place
                for place, outcome in enumerate(outcomes)
                if outcome is NOT_TRIED and place not in handover.reports
            ]
            for place in (*lost, *unreported):
                outcomes[place] = fault
        elif lost and not failed:
            words = next(e.str() for e in handover.reports.values() if e is not None)
            for place in lost:
                outcomes[place] = Outcome.fault("broker_failed", words)
            # What the library gave up leaves a hole in what this producer numbers, and brokers
            # take nothing behind a hole.
            client.abandon(words, brokers_failed=True)

    async def _one_by_one(
        self,
        batch: Sequence[OutboxMessage],
        outcomes: list[Outcome],
        places: Sequence[int],
        may_send: MaySend,
    ) -> None:
        """Hand over some of a batch, each when the one before it is reported."""
        stopped: set[Line] = set()
        for place in places:
            outcomes[place] = NOT_TRIED
        for place in places:
            message = batch[place]
            if message.line in stopped:
                continue
            try:
                client = await self._usable_client()
                (alone,) = await self._hand_over(client, [message], {}, may_send)
            except Unreachable as error:
                alone = Outcome.fault("broker_unavailable", str(error))
            if alone is SUSPECT:
                size = f"{len(message.payload):,} bytes"
                alone = Outcome.refused("too_large", f"the broker does not take it ({size})")
            outcomes[place] = alone
            if alone.kind in NOT_HAD:
                return  # the others would each wait as long
            if alone is not DELIVERED and message.line is not None:
                stopped.add(message.line)


class Unreachable(Exception):
    """No broker answered."""


SUSPECT = Outcome.retry("request_refused", "a request with this message in it was refused")


def _may_come(error: KafkaError | None) -> bool:
    return error is not None and (error.name() in UNKNOWN_TOPIC or error.name() == LEADERLESS)


def words_of(error: Exception) -> str:
    said = error.args[0] if error.args else error
    return said.str() if hasattr(said, "str") else str(said)
