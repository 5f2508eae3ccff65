"""Spans of what became of events, in the traces of those who published them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from allim.base.telemetry import TraceContext
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.box import Settlement

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

TRACEPARENT = "traceparent"


class EventSpans:
    """One span for each event that came with a `traceparent` and whose attempt is written.

    It ends now and takes as long as its batch took. An event without one belongs to no trace, and
    gets no span.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def write(self, settlement: Settlement[OutboxMessage], seconds: float) -> None:
        """Write the spans of a turn that was settled."""
        ended = time.time_ns()
        began = ended - int(seconds * 1e9)
        for message, outcome, code in _results(settlement):
            parent = TraceContext.parse(message.headers.get(TRACEPARENT))
            if parent is not None:
                self._write(message, outcome, code, parent, (began, ended))

    def _write(
        self,
        message: OutboxMessage,
        outcome: str,
        code: str | None,
        parent: TraceContext,
        times: tuple[int, int],
    ) -> None:
        from opentelemetry import trace

        attributes: dict[str, Any] = {
            "messaging.operation.type": "send",
            "messaging.destination.name": message.topic,
            "messaging.message.id": message.id,
            "allim.slot": message.slot,
            "allim.retry_count": message.retry_count,
            "allim.outcome": outcome,
        }
        if code:
            attributes["error.type"] = code
        span = self._tracer.start_span(
            f"send {message.topic}",
            context=trace.set_span_in_context(trace.NonRecordingSpan(parent.span_context())),
            kind=trace.SpanKind.PRODUCER,
            attributes=attributes,
            start_time=times[0],
        )
        if code:
            span.set_status(trace.StatusCode.ERROR, code)
        span.end(times[1])


def _results(
    settlement: Settlement[OutboxMessage],
) -> Iterable[tuple[OutboxMessage, str, str | None]]:
    for message in settlement.sent:
        yield message, "sent", None
    for failure in settlement.retried:
        yield failure.message, "failed" if failure.spent else "put off", failure.code
    for failure in settlement.buried:
        yield failure.message, "dead", failure.code
