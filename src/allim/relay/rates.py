"""Rates per target: each call takes a place in the target's line."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from allim.base.clock import Clock
from allim.relay.sender import RateLimit

HORIZON_SECONDS = 60.0
"""How far ahead places are given out. Farther ones would be wasted when work is cancelled."""

OVERFLOW_LIMIT_SECONDS = 600.0

RESERVED = "rate_limit_turn"
"""The code of a snooze whose place in line is paid for; no sender says this word."""


class RateKeeper(Protocol):
    """Gives out places in line, shared by whoever shares the keeper."""

    async def reserve(self, key: str, rate: RateLimit, count: int) -> Sequence[float]:
        """Take up to `count` places: the seconds to wait for each, none beyond the horizon.

        Fewer than `count` when the line is longer than HORIZON_SECONDS.
        """


class LocalRates:
    """A line kept in this process only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_free: dict[str, float] = {}

    async def reserve(self, key: str, rate: RateLimit, count: int) -> Sequence[float]:
        """Take places as `RateKeeper` says."""
        now = self._clock()
        interval = 1.0 / rate.per_second
        first = max(self._next_free.get(key, 0.0), now - (rate.burst - 1) * interval)
        places = places_within_horizon(first - now, interval, count)
        self._next_free[key] = first + len(places) * interval
        return [max(place, 0.0) for place in places]


def places_within_horizon(first: float, interval: float, count: int) -> Sequence[float]:
    """The waits of `count` places beginning `first` seconds from now, up to the horizon."""
    room = int((HORIZON_SECONDS - first) / interval) + 1 if first <= HORIZON_SECONDS else 0
    return [first + place * interval for place in range(min(count, max(room, 0)))]


class Overflow:
    """Where work goes that found no place: spread out behind the horizon, in this process's order.

    Not a promise, only a time to ask again, so that a long line is not claimed over and over.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends: dict[str, float] = {}

    def ask_again_in(self, key: str, rate: RateLimit) -> float:
        """Seconds until the next one of `key` should ask for a place again."""
        now = self._clock()
        end = max(self._ends.get(key, 0.0), now + HORIZON_SECONDS / 2) + 1.0 / rate.per_second
        self._ends[key] = min(end, now + OVERFLOW_LIMIT_SECONDS)
        if end > now + OVERFLOW_LIMIT_SECONDS:
            return OVERFLOW_LIMIT_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311
        return end - now
