"""What a relay tells of itself."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prometheus_client import CollectorRegistry
from pydantic_core import to_json

from allim.base.logging import LogWriter, json_line, text_line
from allim.base.telemetry import Histogram, TraceContext, Words, trace_id_of
from allim.relay.observer import Settled
from allim.relay.outcomes import Outcome
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import decide
from allim.relay.telemetry import RelayTelemetry
from allim.relay.work import Work

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Letter:
    notification_id: UUID
    created_at: datetime
    traceparent: str | None = TRACE


def settled(outcome: Outcome, *, landed: bool = True, seconds: float = 0.02) -> Settled:
    letter = Letter(UUID(int=7), datetime.now(UTC) - timedelta(seconds=3))
    work = Work(5, "token", 2, 1, 8, 0, 0.0, letter)
    return Settled(decide(work, outcome, RetryPolicy()), 'mail "x"', seconds, landed)


def telemetry() -> tuple[RelayTelemetry, CollectorRegistry, io.StringIO]:
    stream = io.StringIO()
    told = RelayTelemetry("worker-1", LogWriter(json_line, stream, logging.INFO))
    registry = CollectorRegistry()
    registry.register(told)
    return told, registry, stream


def test_an_attempt_is_one_wide_line() -> None:
    told, _, stream = telemetry()
    told.settled(
        "EMAIL", [settled(Outcome.retry("http_503", http_status=503)), settled(Outcome.delivered())]
    )
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    delay = first.pop("next_delay")
    assert 90 < delay < 150
    first.pop("time")
    assert first == {
        "level": "info",
        "event": "attempt",
        "delivery_id": 5,
        "notification_id": str(UUID(int=7)),
        "channel": "EMAIL",
        "target": 'mail "x"',
        "attempt": 2,
        "outcome": "RETRY",
        "code": "http_503",
        "http_status": 503,
        "transition": "retry",
        "seconds": 0.02,
        "retry_count": 2,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "worker": "worker-1",
    }
    assert (second["outcome"], second["transition"]) == ("DELIVERED", "complete")


def test_the_line_for_people_says_the_same() -> None:
    told, _, stream = telemetry()
    told.settled("EMAIL", [settled(Outcome.refused("mailbox_unknown"))])
    line = json.loads(stream.getvalue())
    (event,) = told._lines.events("EMAIL", [settled(Outcome.refused("mailbox_unknown"))], "now")
    said = {key: value for key, value in event.items() if value is not None}
    assert json.loads(to_json(said)) == {**line, "time": "now"}
    assert "mailbox_unknown" in text_line(False)(event)


def test_figures_tell_what_became_of_attempts() -> None:
    told, registry, _ = telemetry()
    told.claimed("EMAIL", 3)
    told.settled(
        "EMAIL",
        [
            settled(Outcome.delivered()),
            settled(Outcome.refused("mailbox_unknown"), seconds=0.0),
            settled(Outcome.delivered(), landed=False),
        ],
    )

    def figure(name: str, **labels: Any) -> float | None:
        return registry.get_sample_value(name, {"channel": "EMAIL", **labels})

    assert figure("allim_attempts_total", outcome="delivered", reason="") == 1
    assert figure("allim_attempts_total", outcome="refused", reason="mailbox_unknown") == 1
    assert figure("allim_claimed_total") == 3
    assert figure("allim_settles_refused_total") == 1
    assert figure("allim_attempt_seconds_count") == 1
    assert figure("allim_attempt_seconds_bucket", le="0.025") == 1
    assert figure("allim_attempt_seconds_bucket", le="0.01") == 0
    assert figure("allim_end_to_end_seconds_count") == 1
    assert figure("allim_end_to_end_seconds_bucket", le="5") == 1
    assert figure("allim_retry_count_count") == 2


def test_an_open_breaker_is_shown_until_it_closes() -> None:
    told, registry, _ = telemetry()
    labels = {"channel": "SLACK", "target": "hooks"}
    told.breaker("SLACK", "hooks", is_open=True)
    assert registry.get_sample_value("allim_breaker_open", labels) == 1
    told.breaker("SLACK", "hooks", is_open=False)
    assert registry.get_sample_value("allim_breaker_open", labels) is None
    assert registry.get_sample_value("allim_breaker_opened_total", {"channel": "SLACK"}) == 1


def test_reasons_stay_few() -> None:
    words = Words(2)
    assert [words.bounded(word) for word in "abcab"] == ["a", "b", "other", "a", "b"]


def test_histograms_count_what_lies_at_or_below_a_bound() -> None:
    histogram = Histogram((1, 2))
    histogram.observe([0.5, 1, 1.5, 9])
    assert histogram.cumulative() == [("1", 2.0), ("2", 3.0), ("+Inf", 4.0)]
    assert histogram.total == 12


def test_a_trace_is_carried_or_left_out() -> None:
    parent = TraceContext.parse(TRACE)
    assert parent is not None
    assert parent.sampled
    assert parent.span_context().trace_id == int("0af7651916cd43dd8448eb211c80319c", 16)
    assert TraceContext.parse("00-" + "0" * 32 + "-" + "0" * 16 + "-00") is None
    assert TraceContext.parse(None) is None
    assert trace_id_of('00-"injected"' + "x" * 42) is None
