"""Spans of events, in the traces of those who published them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from opentelemetry import trace

from allim.events.relaying.message import OutboxMessage
from allim.events.relaying.spans import EventSpans
from allim.events.relaying.telemetry import EventTelemetry
from allim.relay.ordered.box import Failure, Settlement

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Written:
    """What the relay asks a tracer for."""

    name: str
    parent: trace.SpanContext
    attributes: Mapping[str, Any]
    kind: trace.SpanKind
    start: int
    status: tuple[Any, ...] = ()
    ended: int = 0

    def set_status(self, *status: Any) -> None:
        self.status = status

    def end(self, at: int) -> None:
        self.ended = at


@dataclass
class Tracer:
    """Keeps what it is asked for."""

    spans: list[Written] = field(default_factory=list)

    def start_span(
        self, name: str, *, context: Any, kind: Any, attributes: Any, start_time: int
    ) -> Written:
        parent = trace.get_current_span(context).get_span_context()
        self.spans.append(Written(name, parent, attributes, kind, start_time))
        return self.spans[-1]


def message(number: int, traceparent: str | None = TRACE) -> OutboxMessage:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    return OutboxMessage(
        3, number, None, f"id-{number}", "orders", "k", b"x", headers, None, None, 0.0, 1, 0
    )


def test_each_event_has_a_span_in_the_trace_of_whoever_published_it() -> None:
    tracer = Tracer()
    settlement = Settlement(
        sent=[message(1), message(2, None), message(3, "nonsense")],
        retried=[
            Failure(message(4), "broken", "", 1.0),
            Failure(message(5), "key", "", 1.0, False),
        ],
        buried=[Failure(message(6), "too_large", "")],
    )
    EventSpans(cast(trace.Tracer, tracer)).write(settlement, 0.25)

    assert [
        (span.attributes["messaging.message.id"], span.attributes["allim.outcome"], span.status)
        for span in tracer.spans
    ] == [
        ("id-1", "sent", ()),
        ("id-4", "failed", (trace.StatusCode.ERROR, "broken")),
        ("id-5", "put off", (trace.StatusCode.ERROR, "key")),
        ("id-6", "dead", (trace.StatusCode.ERROR, "too_large")),
    ]
    for span in tracer.spans:
        assert f"{span.parent.trace_id:032x}" == TRACE[3:35]
        assert f"{span.parent.span_id:016x}" == TRACE[36:52]
        assert span.parent.trace_flags.sampled
        assert (span.name, span.kind) == ("send orders", trace.SpanKind.PRODUCER)
        assert span.ended - span.start == 250_000_000


def test_without_a_provider_that_does_something_nothing_is_traced() -> None:
    assert EventTelemetry()._spans is None
