"""Figures kept as plain numbers, and traces carried as text.

Counting happens on the event loop, ten thousand times a second; so there are no locks and no
label objects here, only dicts of numbers that a collector turns into metrics when asked.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext, Tracer

LATENCY_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600,
    86400,
)  # fmt: skip
"""Seconds."""
CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds."""
RETRY_BUCKETS = (0, 1, 2, 3, 5, 8, 13, 21)

_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")


class Histogram:
    """Counts of observations in buckets."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, values: Sequence[float]) -> None:
        """Count an observation for each value."""
        bounds, counts = self._bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def cumulative(self) -> list[tuple[str, float]]:
        """Bucket bounds and how many observations lie at or below each."""
        seen = 0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            seen += count
            buckets.append(("+Inf" if bound == float("inf") else f"{bound:g}", float(seen)))
        return buckets


class Words:
    """Keeps a set of label values small: what comes after the first `limit` is ``other``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def bounded(self, word: str) -> str:
        """The word, or ``other``."""
        if word in self._known:
            return word
        if len(self._known) >= self._limit:
            return "other"
        self._known.add(word)
        return word


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A W3C trace context, as it stands in a `traceparent` header."""

    trace_id: str
    span_id: str
    sampled: bool

    @classmethod
    def parse(cls, traceparent: str | None) -> TraceContext | None:
        """None where it is none, or not one we know how to read."""
        match = _TRACEPARENT.match(traceparent) if traceparent else None
        if match is None or not int(match[1], 16) or not int(match[2], 16):
            return None
        return cls(match[1], match[2], bool(int(match[3], 16) & 1))

    def span_context(self) -> SpanContext:
        """For OpenTelemetry."""
        from opentelemetry.trace import SpanContext, TraceFlags

        flags = TraceFlags(TraceFlags.SAMPLED if self.sampled else TraceFlags.DEFAULT)
        return SpanContext(int(self.trace_id, 16), int(self.span_id, 16), True, flags)


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id in a `traceparent`; None where there is none."""
    if traceparent is None or len(traceparent) != 55:
        return None
    trace_id = traceparent[3:35]
    return trace_id if trace_id.isalnum() and trace_id.isascii() else None


def real_tracer(name: str) -> Tracer | None:
    """A tracer, where the program set a provider that does something; else None, at no cost.

    Only the SDK makes spans that go anywhere, and whoever sets a provider has loaded it.
    """
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    return provider.get_tracer(name)
