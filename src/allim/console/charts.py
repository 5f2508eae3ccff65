"""Rollups as charts take them: one list of moments, and a list of values for each line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from allim.hub.rollups import Point, Series, Window
from allim.relay.tally import DELIVERY, OUTBOX

LEAST_MINUTES = 0.25
"""The step that has just begun is taken for at least so long, or its rates would jump."""


def charts_of(window: Window, series: Series) -> Mapping[str, Any]:
    """Rates a minute of both boxes, and the share of errors of each channel in per cent."""
    at = [series.first + n * window.step for n in range(window.steps)]
    place = {moment: n for n, moment in enumerate(at)}
    minutes = [_minutes(moment, window.step, series.now) for moment in at]

    def rates(box: str, value: Callable[[Point], int]) -> Sequence[float]:
        sums = [0] * len(at)
        for point in series.points:
            if point.box == box and point.at in place:
                sums[place[point.at]] += value(point)
        return [round(total / span, 3) for total, span in zip(sums, minutes, strict=True)]

    return {
        "at": at,
        "deliveries": {
            "created": rates(DELIVERY, lambda p: p.created),
            "delivered": rates(DELIVERY, lambda p: p.delivered),
            "retried": rates(DELIVERY, lambda p: p.retried),
            "dead": rates(DELIVERY, lambda p: p.dead),
        },
        "errors": _error_shares(at, place, series.points),
        "events": {
            "created": rates(OUTBOX, lambda p: p.created),
            "delivered": rates(OUTBOX, lambda p: p.delivered),
            "retried": rates(OUTBOX, lambda p: p.retried),
            "dead": rates(OUTBOX, lambda p: p.dead),
        },
    }


def _error_shares(
    at: Sequence[int], place: Mapping[int, int], points: Sequence[Point]
) -> Mapping[str, Sequence[float | None]]:
    shares: dict[str, list[float | None]] = defaultdict(lambda: [None] * len(at))
    for point in points:
        attempts = point.delivered + point.retried + point.dead
        if point.box == DELIVERY and attempts and point.at in place:
            failed = point.retried + point.dead
            shares[point.channel][place[point.at]] = round(100 * failed / attempts, 2)
    return dict(sorted(shares.items()))


def _minutes(moment: int, step: int, now: float) -> float:
    return max(min(step, now - moment) / 60, LEAST_MINUTES)
