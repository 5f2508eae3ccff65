"""One Kafka producer with the thread that serves it; what it is handed, and what becomes of that.

confluent-kafka's `Producer` is called from the event loop and never blocks there; its delivery
reports come in a thread of ours, which tells the loop when a handover is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from allim.base.errors import ConfigurationError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

log = logging.getLogger("allim.events.kafka")

POLL_SECONDS = 0.1
PURGE_SECONDS = 5.0
QUIET_SECONDS = 10.0
GAPLESS = "_GAPLESS_GUARANTEE"
FENCED = frozenset({"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"})
CONFIGURATION = "CONFWARN"


class Handover:
    """Messages handed to a producer, and the report on each: None for one that arrived."""

    def __init__(self, count: int) -> None:
        self.began = time.monotonic()
        self.reports: dict[int, KafkaError | None] = {}
        self.done = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._expected = count
        self._whole = False

    @property
    def all_arrived(self) -> bool:
        """Whether the brokers have all that was handed over."""
        reports = self.reports
        return len(reports) >= self._expected and not any(reports.values())

    def handed(self, count: int) -> None:
        """All that will be handed over was: so many."""
        self._expected = count
        self._whole = True
        self._look()

    def report(self, place: int, error: KafkaError | None) -> None:
        """From the thread: what became of one."""
        self.reports[place] = error
        if self._whole and len(self.reports) >= self._expected:
            self._tell()

    def _look(self) -> None:
        if len(self.reports) >= self._expected:
            self.done.set()

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.done.set)


class KafkaClient:
    """A producer, from its making to its end. It is not used again once it is `broken`."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.broken: str | None = None
        """Why it can't be used any more."""
        self.brokers_failed = False
        """Whether that is the brokers' doing, and not a message's or ours."""
        self.fenced = False
        """Whether another has opened its `transactional.id`."""
        self.last_arrival = time.monotonic()
        self._producer: Producer = make_producer({**configuration, "error_cb": _note})
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="allim-kafka", daemon=True)
        self._thread.start()

    def produce(
        self,
        handover: Handover,
        place: int,
        *,
        topic: str,
        key: str | None,
        value: bytes,
        headers: Sequence[tuple[str, bytes]],
    ) -> None:
        """Hand one message over. Raises BufferError when full, KafkaException for what can't be."""
        self._producer.produce(
            topic,
            value,
            None if key is None else key.encode(),
            on_delivery=partial(self._on_delivery, handover, place),
            headers=headers,  # type: ignore[arg-type]
        )

    def open(self, seconds: float) -> None:
        """Open its `transactional.id`: whoever had it is fenced. Blocks; raises KafkaException."""
        self._producer.init_transactions(seconds)

    def begin(self) -> None:
        """Begin a transaction. Raises KafkaException."""
        self._producer.begin_transaction()

    def commit(self, seconds: float) -> None:
        """Commit it. Blocks; raises KafkaException; may be repeated after one to be retried."""
        self._producer.commit_transaction(seconds)

    def abort(self, seconds: float) -> None:
        """Abort it. Blocks; raises KafkaException."""
        self._producer.abort_transaction(seconds)

    def note(self, error: Exception) -> None:
        """It can't be used any more, for this."""
        self.fenced = self.fenced or is_fenced(error)
        self.abandon(str(error), brokers_failed=True)

    def topic_error(self, topic: str, seconds: float) -> KafkaError | None:
        """What the brokers say is wrong with a topic. Blocks; raises KafkaException."""
        found = self._producer.list_topics(topic, seconds).topics.get(topic)
        return found.error if found is not None else None

    def abandon(self, reason: str, *, brokers_failed: bool = False) -> None:
        """Let go of nothing more; what was not delivered is reported so, soon."""
        if self.broken is None:
            self.broken = reason
            self.brokers_failed = brokers_failed
        with contextlib.suppress(Exception):
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        self._ending.set()

    async def close(self) -> None:
        """Wait for its end, a few seconds at most."""
        await asyncio.to_thread(self._thread.join, PURGE_SECONDS * 2)

    def _on_delivery(
        self, handover: Handover, place: int, error: KafkaError | None, _message: Any
    ) -> None:
        if error is None:
            self.last_arrival = time.monotonic()
        handover.report(place, error)

    def _serve(self) -> None:
        while not self._ending.is_set():
            self._poll()
        until = time.monotonic() + PURGE_SECONDS
        while len(self._producer) and time.monotonic() < until:
            self._poll()

    def _poll(self) -> None:
        try:
            self._producer.poll(POLL_SECONDS)
        except Exception as error:
            # The library's boundary: this is how it tells of errors that are fatal for it.
            self.fenced = self.fenced or is_fenced(error)
            if self.broken is None:
                self.brokers_failed = GAPLESS not in str(error)
                self.broken = str(error)
                log.warning("the producer is broken and will be built anew: %s", error)


class LibraryLog:
    """Where librdkafka's own lines go.

    It tries a broker that is down several times a second and tells of each: of a kind of line
    one is passed on in `QUIET_SECONDS`.
    """

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}

    def log(self, level: int, message: str, *arguments: Any) -> None:
        """Pass a line on, but for the warning that our settings are what they are meant to be."""
        kind = str(arguments[0]) if arguments else ""
        now = time.monotonic()
        if kind == CONFIGURATION or now < self._told_at.get(kind, -QUIET_SECONDS) + QUIET_SECONDS:
            return
        self._told_at[kind] = now
        log.log(min(level, logging.WARNING), message, *arguments)


def is_fenced(error: Exception) -> bool:
    """Whether a producer says that another has opened its `transactional.id`."""
    said: Any = error.args[0] if error.args else None
    return hasattr(said, "name") and said.name() in FENCED


def _note(error: KafkaError) -> None:
    log.debug("%s", error.str())


def make_producer(configuration: dict[str, Any]) -> Producer:
    """A producer. Raises ConfigurationError where there can be none like this."""
    try:
        from confluent_kafka import KafkaException, Producer
    except ModuleNotFoundError:
        raise ConfigurationError(
            "Kafka needs confluent-kafka: pip install 'allim[kafka]'"
        ) from None
    try:
        return Producer(configuration, logger=LibraryLog())
    except KafkaException as error:
        raise ConfigurationError(f"KAFKA_*: {error.args[0].str()}") from None
