"""One wide line an attempt: everything but the message, its recipient and secrets.

At ten thousand attempts a second a general way through dicts and encoders would cost more than
the attempt; so JSON is written by hand here, in one string for a whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from allim.base.logging import Event
from allim.base.telemetry import trace_id_of
from allim.relay.observer import Settled
from allim.relay.settlement import Transition

TROUBLE = frozenset({Transition.BURY, Transition.HOLD})
_QUOTED_KEPT = 10_000


class AttemptLines:
    """Renders the lines of a batch."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._quoted: dict[str | None, str] = {None: "null"}

    def json(self, lane: str, batch: Sequence[Settled], stamp: str) -> str:
        """The batch as lines of JSON."""
        quote = self._quoted.get
        quote_new = self._quote
        head = f'{{"time":"{stamp}","level":'
        tail = f'"channel":{quote(lane) or quote_new(lane)},"worker":"{self._worker}"}}\n'
        usual = f'{head}"info","event":"attempt","delivery_id":'
        trouble = f'{head}"warning","event":"attempt","delivery_id":'
        lost = f'{head}"warning","event":"attempt lost its claim","delivery_id":'
        identities = to_json([item.settlement.work.content.notification_id for item in batch])
        lines = []
        for item, identity in zip(batch, identities[1:-1].decode().split(","), strict=True):
            settlement = item.settlement
            work, outcome, transition = settlement.work, settlement.outcome, settlement.transition
            code, target = settlement.code, item.target
            begin = lost if not item.landed else trouble if transition in TROUBLE else usual
            more = ""
            if code is not None:
                more = f'"code":{quote(code) or quote_new(code)},'
            if outcome.http_status is not None:
                more += f'"http_status":{outcome.http_status:d},'
            if settlement.delay is not None:
                more += f'"next_delay":{settlement.delay:.3f},'
            if target:
                more += f'"target":{quote(target) or quote_new(target)},'
            trace_id = trace_id_of(work.content.traceparent)
            if trace_id is not None:
                more += f'"trace_id":"{trace_id}",'
            lines.append(
                f'{begin}{work.id},"notification_id":{identity},'
                f'"attempt":{work.attempt_no},"outcome":"{outcome.kind._value_}",'
                f'"transition":"{transition._value_}","seconds":{item.seconds:.6f},'
                f'"retry_count":{work.retry_count + settlement.spent},{more}{tail}'
            )
        return "".join(lines)

    def events(self, lane: str, batch: Sequence[Settled], stamp: str) -> Sequence[Event]:
        """The same for people: one event an attempt."""
        return [self._event(lane, item, stamp) for item in batch]

    def _event(self, lane: str, item: Settled, stamp: str) -> dict[str, Any]:
        settlement = item.settlement
        work, outcome = settlement.work, settlement.outcome
        return {
            "time": stamp,
            "level": "warning" if settlement.transition in TROUBLE or not item.landed else "info",
            "event": "attempt" if item.landed else "attempt lost its claim",
            "channel": lane,
            "outcome": outcome.kind,
            "code": settlement.code,
            "http_status": outcome.http_status,
            "target": item.target or None,
            "delivery_id": work.id,
            "notification_id": work.content.notification_id,
            "attempt": work.attempt_no,
            "transition": settlement.transition,
            "seconds": item.seconds,
            "retry_count": work.retry_count + settlement.spent,
            "next_delay": settlement.delay,
            "trace_id": trace_id_of(work.content.traceparent),
            "worker": self._worker,
        }

    def _quote(self, text: str) -> str:
        if len(self._quoted) > _QUOTED_KEPT:
            self._quoted = {None: "null"}
        quoted = to_json(text.encode(errors="replace").decode()).decode()
        self._quoted[text] = quoted
        return quoted
