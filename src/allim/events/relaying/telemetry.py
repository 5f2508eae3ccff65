"""What is made of an event relay's doings: metrics, and a line for whatever did not go well."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from allim.base.telemetry import (
    CALL_BUCKETS,
    LATENCY_BUCKETS,
    RETRY_BUCKETS,
    Histogram,
    Words,
    real_tracer,
)
from allim.events.relaying.message import OutboxMessage
from allim.events.relaying.spans import EventSpans
from allim.relay.ordered.box import Failure, Settlement

log = logging.getLogger("allim.events")

TOPICS = 200
"""How many topics are told apart in metrics."""
NOTICE_SECONDS = 10.0


class EventTelemetry(Collector):
    """Implements relay.ordered.observer.OrderedObserver; a prometheus collector of its counts."""

    def __init__(self) -> None:
        self._topics = Words(TOPICS)
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._calls = Histogram(CALL_BUCKETS)
        self._retries = Histogram(RETRY_BUCKETS)
        self._latency: dict[str, Histogram] = defaultdict(lambda: Histogram(LATENCY_BUCKETS))
        self._held = 0
        self._paused: dict[str, bool] = {}
        self._leases_lost = 0
        self._database_lost = 0
        self._noticed_at = -NOTICE_SECONDS
        tracer = real_tracer("allim.events")
        self._spans = EventSpans(tracer) if tracer is not None else None

    # As an observer

    def settled(self, settlement: Settlement[OutboxMessage], seconds: float) -> None:
        """Count a turn, and write a line for each message that was not taken."""
        self._calls.observe([seconds])
        now = time.time()
        ages: dict[str, list[float]] = defaultdict(list)
        for message in settlement.sent:
            ages[message.topic].append(max(now - message.created_at, 0.0))
        for topic, found in ages.items():
            word = self._topics.bounded(topic)
            self._outcomes[word, "sent"] += len(found)
            self._latency[word].observe(found)
        buried = [failure.message for failure in settlement.buried]
        self._retries.observe([m.retry_count for m in (*settlement.sent, *buried)])
        for failure in settlement.retried:
            self._tell(failure, "failed" if failure.spent else "put off")
        for failure in settlement.buried:
            self._tell(failure, "dead")
        if self._spans is not None:
            self._spans.write(settlement, seconds)

    def _tell(self, failure: Failure[OutboxMessage], outcome: str) -> None:
        message = failure.message
        self._outcomes[self._topics.bounded(message.topic), outcome] += 1
        log.warning(
            "event %s of %s is %s: %s",
            message.id,
            message.topic,
            outcome,
            failure.code,
            extra={
                "event_id": message.id,
                "topic": message.topic,
                "slot": message.slot,
                "retry_count": message.retry_count,
                "outcome": outcome,
                "error_code": failure.code,
                "error": failure.detail,
                "traceparent": message.headers.get("traceparent"),
            },
        )

    def slots(self, held: int, blocked: int) -> None:
        """Keep the figure."""
        self._held = held

    def paused(self, publisher: str, *, is_paused: bool, reason: str = "") -> None:
        """Keep it, and say so."""
        self._paused[publisher] = is_paused
        if is_paused:
            log.warning("%s cannot be had, publishing pauses: %s", publisher, reason)
        else:
            log.info("%s can be had again", publisher)

    def lease_lost(self, relay: str) -> None:
        """Count, and say so."""
        self._leases_lost += 1
        log.warning("relay %s lost its lease, and begins anew", relay)

    def database_lost(self, error: str) -> None:
        """Count, and say so now and then."""
        self._database_lost += 1
        if time.monotonic() - self._noticed_at >= NOTICE_SECONDS:
            self._noticed_at = time.monotonic()
            log.warning("the database is gone, trying again: %s", error)

    # As a collector

    def collect(self) -> Iterable[Metric]:
        """The figures."""
        events = CounterMetricFamily(
            "allim_events", "Events, by what became of an attempt.", labels=["topic", "outcome"]
        )
        for labels, count in list(self._outcomes.items()):
            events.add_metric(labels, count)
        yield events
        latency = HistogramMetricFamily(
            "allim_event_seconds",
            "From the event's transaction to the broker's acknowledgement.",
            labels=["topic"],
        )
        for topic, histogram in list(self._latency.items()):
            latency.add_metric([topic], histogram.cumulative(), histogram.total)
        yield latency
        for name, words, histogram in (
            ("allim_event_turn_seconds", "How long publishing a batch took.", self._calls),
            ("allim_event_retry_count", "Retries spent on events that ended.", self._retries),
        ):
            metric = HistogramMetricFamily(name, words)
            metric.add_metric([], histogram.cumulative(), histogram.total)
            yield metric
        held = GaugeMetricFamily("allim_slots_held", "Slots of the outbox that this relay holds.")
        held.add_metric([], self._held)
        yield held
        paused = GaugeMetricFamily(
            "allim_publisher_paused", "Publishers left alone now (1).", labels=["publisher"]
        )
        for publisher, is_paused in list(self._paused.items()):
            paused.add_metric([publisher], float(is_paused))
        yield paused
        yield _counter("allim_event_leases_lost", "Leases that were lost.", self._leases_lost)
        yield _counter(
            "allim_event_database_lost", "Statements that met no database.", self._database_lost
        )


def _counter(name: str, words: str, count: int) -> Metric:
    metric = CounterMetricFamily(name, words)
    metric.add_metric([], count)
    return metric
