"""A clock that a test turns by hand."""

from __future__ import annotations


class HandClock:
    """Seconds that pass only when told to. Implements base.clock.Clock."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Seconds since some fixed moment."""
        return self.now

    def turn(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds
