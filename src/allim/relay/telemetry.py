"""What is made of a relay's doings: metrics, one wide line an attempt, and spans."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from allim.base.logging import LogWriter, now
from allim.base.telemetry import (
    CALL_BUCKETS,
    LATENCY_BUCKETS,
    RETRY_BUCKETS,
    Histogram,
    TraceContext,
    Words,
    real_tracer,
)
from allim.relay.attempt_lines import TROUBLE, AttemptLines
from allim.relay.observer import Settled
from allim.relay.settlement import Transition

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = logging.getLogger("allim.relay")

REASONS = 100
"""How many reasons of one lane are told apart in metrics."""
BREAKERS_SHOWN = 100
DATABASE_NOTICE_SECONDS = 10.0
FINISHED = frozenset({Transition.COMPLETE, Transition.ACCEPT, Transition.SKIP, Transition.BURY})


class RelayTelemetry(Collector):
    """Implements relay.observer.Observer; a prometheus collector of what it counted.

    Lines of a batch are written together. Used from the event loop only; a scrape from
    another thread reads numbers that may be a moment apart.
    """

    def __init__(self, worker: str, writer: LogWriter) -> None:
        self._writer = writer
        self._told = writer.logs(logging.INFO)
        self._lines = AttemptLines(worker)
        self._tracer: Tracer | None = real_tracer("allim.relay")
        self._attempts: dict[str, Counter[tuple[str, str | None]]] = defaultdict(Counter)
        self._reasons: dict[str, Words] = defaultdict(lambda: Words(REASONS))
        self._calls: dict[str, Histogram] = defaultdict(lambda: Histogram(CALL_BUCKETS))
        self._latency: dict[str, Histogram] = defaultdict(lambda: Histogram(LATENCY_BUCKETS))
        self._retries: dict[str, Histogram] = defaultdict(lambda: Histogram(RETRY_BUCKETS))
        self._claimed: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._rescued: Counter[str] = Counter()
        self._expired = 0
        self._opened: Counter[str] = Counter()
        self._open: set[tuple[str, str]] = set()
        self._database_lost: Counter[str] = Counter()
        self._database_noticed = -DATABASE_NOTICE_SECONDS

    # As an observer

    def claimed(self, lane: str, count: int) -> None:
        """Count."""
        self._claimed[lane] += count

    def settled(self, lane: str, batch: Sequence[Settled]) -> None:
        """Count, write the lines of the batch, and tell the spans."""
        landed = [item for item in batch if item.landed]
        if len(landed) < len(batch):
            self._refused[lane] += len(batch) - len(landed)
        self._count(lane, landed)
        if self._told:
            if self._writer.as_json:
                self._writer.write_text(self._lines.json(lane, batch, now()))
            else:
                self._writer.write(self._lines.events(lane, batch, now()))
        if self._tracer is not None:
            self._trace(self._tracer, lane, batch)

    def _count(self, lane: str, landed: Sequence[Settled]) -> None:
        """Counts by value first: most of a batch went the same way."""
        settlements = [item.settlement for item in landed]
        attempts = self._attempts[lane]
        for way, count in Counter([(s.outcome.kind._value_, s.code) for s in settlements]).items():
            attempts[way] += count
        self._calls[lane].observe([item.seconds for item in landed if item.seconds])
        self._retries[lane].observe(
            [s.work.retry_count for s in settlements if s.transition in FINISHED]
        )
        moment = time.time()
        self._latency[lane].observe(
            [
                # Never less than nothing: the database's clock may be a little ahead.
                max(moment - s.work.content.created_at.timestamp(), 0.0)
                for s in settlements
                if s.transition is Transition.COMPLETE
            ]
        )

    def rescued(self, lane: str, count: int) -> None:
        """Count, and say so: a relay died or was cut off."""
        self._rescued[lane] += count
        log.warning("leases of %s that had run out, their work taken over: %d", lane, count)

    def expired(self, count: int) -> None:
        """Count."""
        self._expired += count

    def breaker(self, lane: str, target: str, *, is_open: bool) -> None:
        """Keep which are open, and say so."""
        if is_open:
            self._opened[lane] += 1
            self._open.add((lane, target))
            log.warning("%s: %s fails, so it is left alone for a while", lane, target)
        else:
            self._open.discard((lane, target))
            log.info("%s: %s works again", lane, target)

    def database_lost(self, lane: str, error: str) -> None:
        """Count, and say so now and then: every lane meets it over and over."""
        self._database_lost[lane] += 1
        if time.monotonic() - self._database_noticed >= DATABASE_NOTICE_SECONDS:
            self._database_noticed = time.monotonic()
            log.warning("the database is gone, trying again: %s", error)

    # As a collector

    def collect(self) -> Iterable[Metric]:
        """The figures."""
        yield self._attempts_metric()
        yield _histogram(
            "allim_attempt_seconds", "How long a call to a channel's target took.", self._calls
        )
        yield _histogram(
            "allim_end_to_end_seconds",
            "From the request's arrival to success, with every wait and retry between.",
            self._latency,
        )
        yield _histogram(
            "allim_retry_count", "Retries spent on deliveries that came to an end.", self._retries
        )
        yield _counter("allim_claimed", "Deliveries claimed.", self._claimed)
        yield _counter(
            "allim_settles_refused",
            "Settles that changed nothing, because the claim had been taken over.",
            self._refused,
        )
        yield _counter(
            "allim_rescues", "Deliveries taken over because their lease had run out.", self._rescued
        )
        yield _counter("allim_breaker_opened", "Circuit breakers that opened.", self._opened)
        yield _counter(
            "allim_database_lost", "Claims and settles that met no database.", self._database_lost
        )
        expired = CounterMetricFamily("allim_expired", "Deliveries that reached expires_at.")
        expired.add_metric([], self._expired)
        yield expired
        breakers = GaugeMetricFamily(
            "allim_breaker_open", "Targets left alone now (1).", labels=["channel", "target"]
        )
        for lane, target in sorted(self._open)[:BREAKERS_SHOWN]:
            breakers.add_metric([lane, target], 1.0)
        yield breakers

    def _attempts_metric(self) -> Metric:
        metric = CounterMetricFamily(
            "allim_attempts",
            "Attempts settled, by what became of them.",
            labels=["channel", "outcome", "reason"],
        )
        sums: Counter[tuple[str, str, str]] = Counter()
        for lane, ways in list(self._attempts.items()):
            for (kind, code), count in list(ways.items()):
                reason = self._reasons[lane].bounded(code) if code else ""
                sums[lane, kind.lower(), reason] += count
        for labels, count in sums.items():
            metric.add_metric(labels, count)
        return metric

    # Spans

    def _trace(self, tracer: Tracer, lane: str, batch: Sequence[Settled]) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context

        ended = time.time_ns()
        for item in batch:
            work, outcome = item.settlement.work, item.settlement.outcome
            parent = TraceContext.parse(work.content.traceparent)
            context = None
            if parent is not None:
                span_of_caller = trace.NonRecordingSpan(parent.span_context())
                context = trace.set_span_in_context(span_of_caller)
            attributes: dict[str, Any] = {
                "allim.delivery_id": work.id,
                "allim.notification_id": str(work.content.notification_id),
                "allim.channel": lane,
                "allim.attempt": work.attempt_no,
                "allim.outcome": str(outcome.kind),
                "server.address": item.target,
            }
            if item.settlement.code:
                attributes["allim.code"] = item.settlement.code
            if outcome.http_status:
                attributes["http.response.status_code"] = outcome.http_status
            span = tracer.start_span(
                f"deliver {lane}",
                context=context or Context(),
                kind=trace.SpanKind.CLIENT,
                attributes=attributes,
                start_time=ended - int(item.seconds * 1e9),
            )
            if item.settlement.transition in TROUBLE or item.settlement.spent:
                span.set_status(trace.StatusCode.ERROR, item.settlement.code)
            span.end(ended)


def _counter(name: str, words: str, counts: Counter[str]) -> Metric:
    metric = CounterMetricFamily(name, words, labels=["channel"])
    for lane, count in list(counts.items()):
        metric.add_metric([lane], count)
    return metric


def _histogram(name: str, words: str, histograms: dict[str, Histogram]) -> Metric:
    metric = HistogramMetricFamily(name, words, labels=["channel"])
    for lane, histogram in list(histograms.items()):
        metric.add_metric([lane], histogram.cumulative(), histogram.total)
    return metric
