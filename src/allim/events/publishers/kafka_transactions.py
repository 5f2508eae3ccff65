"""Kafka in transactions: what a relay sends once another has its slots reaches no consumer.

Each incarnation of a relay has a `transactional.id` of its own. Who takes its slots over opens
that id anew before publishing anything, and the broker takes nothing from the old producer any
more, a commit included; what it has under way is aborted. Consumers must read `read_committed`.

Opening an id is always followed by a look at the lease before anything is handed over. So a relay
that was frozen and opens its own id again, after it was fenced, hands nothing over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from allim.events.publishers.kafka import KafkaPublisher, Unreachable, words_of
from allim.events.publishers.kafka_client import Handover, KafkaClient, is_fenced, make_producer
from allim.events.publishers.kafka_settings import KafkaOptions
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.publisher import DELIVERED, NOT_TRIED, MaySend, Superseded
from allim.relay.outcomes import Outcome

log = logging.getLogger("allim.events.kafka")


def kafka_publisher(options: KafkaOptions) -> KafkaPublisher:
    """The publisher that the settings ask for. Raises ConfigurationError."""
    if options.settings.kafka_transactional:
        return TransactionalKafkaPublisher(options)
    return KafkaPublisher(options)


OPEN_SECONDS = 15.0
"""How long opening an id may take; what is under way under it is aborted meanwhile."""
CALL_SECONDS = 10.0


class TransactionalKafkaPublisher(KafkaPublisher):
    """Publishes each batch in a transaction; nothing is DELIVERED before that is committed.

    One transaction at a time is under way: that is Kafka's rule for an id.
    """

    def __init__(self, options: KafkaOptions) -> None:
        super().__init__(options)
        self._prefix = options.settings.kafka_transactional_id_prefix
        self._relay = ""
        self._lock = asyncio.Lock()

    def begin(self, relay: str) -> None:
        """Publish in the name of this incarnation."""
        if self._client is not None:
            self._client.abandon("another incarnation begins")
        self._client, self._relay = None, relay

    async def fence(self, relay: str) -> None:
        """Open the id of an incarnation that ended. Raises Unreachable."""
        await asyncio.to_thread(self._open_and_leave, relay)
        log.info("relay %s is fenced off", relay)

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        """Publish a batch. Raises Superseded."""
        async with self._lock:
            if not may_send():
                return [NOT_TRIED] * len(batch)
            return await super().publish(batch, may_send)

    async def _usable_client(self) -> KafkaClient:
        """Raises Unreachable, Superseded."""
        if self._client is not None and self._client.fenced:
            # Never opened again under this name: that would lift the fence.
            raise Superseded(self._client.broken)
        if self._client is None or self._client.broken is not None:
            if self._client is not None:
                self._client.abandon("replaced")
            client = KafkaClient(self._named(self._relay))
            try:
                await asyncio.to_thread(client.open, OPEN_SECONDS)
            except Exception as error:
                # The library's boundary: KafkaException for whatever was wrong.
                client.abandon("it could not be opened")
                raise Unreachable(words_of(error)) from error
            except BaseException:
                # Cancelled: nobody else knows of this producer, and its thread would never end.
                client.abandon("it was not waited for")
                raise
            self._client = client
        return self._client

    def _begin(self, client: KafkaClient) -> None:
        try:
            client.begin()
        except Exception as error:
            # The library's boundary, as above.
            client.note(error)
            raise Unreachable(words_of(error)) from error

    async def _finish(
        self,
        client: KafkaClient,
        handover: Handover,
        outcomes: list[Outcome],
        may_send: MaySend,
    ) -> None:
        """All of it or nothing: one report that was bad, and nobody sees the rest either."""
        verdict = NOT_TRIED
        if handover.all_arrived and client.broken is None and may_send():
            verdict = await self._commit(client)
        else:
            # A producer that was given up as well: this says whether it was fenced.
            await self._abort(client)
        if client.fenced:
            raise Superseded(client.broken)
        for place, outcome in enumerate(outcomes):
            if outcome is DELIVERED:
                outcomes[place] = verdict

    async def _commit(self, client: KafkaClient) -> Outcome:
        deadline = time.monotonic() + self._delivery_timeout
        while True:
            try:
                await asyncio.to_thread(client.commit, CALL_SECONDS)
                return DELIVERED
            except Exception as error:
                # The library's boundary, as above.
                said: Any = error.args[0] if error.args else None
                if not hasattr(said, "txn_requires_abort"):
                    raise
                if said.txn_requires_abort():
                    await self._abort(client)
                    return Outcome.fault("broker_failed", words_of(error))
                if not said.retriable() or time.monotonic() > deadline or client.broken is not None:
                    # Opening the id anew ends what is in doubt, one way or the other.
                    client.note(error)
                    return Outcome.unknown("commit_in_doubt", words_of(error))

    async def _abort(self, client: KafkaClient) -> None:
        try:
            await asyncio.to_thread(client.abort, CALL_SECONDS)
        except Exception as error:
            # As above; opening the id anew aborts it.
            client.note(error)
        # librdkafka may purge what is handed over soon after an abort along with what it aborted.
        client.abandon("a transaction was taken back")

    def _named(self, relay: str) -> dict[str, Any]:
        return {**self._configuration, "transactional.id": f"{self._prefix}-{relay}"}

    def _open_and_leave(self, relay: str) -> None:
        producer = make_producer({**self._named(relay), "log_level": 0})
        try:
            producer.init_transactions(OPEN_SECONDS)
        except Exception as error:
            # The library's boundary. Fenced: somebody else has just done the same.
            if not is_fenced(error):
                raise Unreachable(words_of(error)) from error
