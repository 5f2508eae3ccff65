"""Targets that asked for a pause: no call is made to them until it is over."""

from __future__ import annotations

import time
from collections.abc import Callable

REMEMBERED = 1000


class Pauses:
    """Until when targets want no call. Each process keeps its own: a hint, not the limit."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._until: dict[str, float] = {}

    def pause(self, target: str, seconds: float) -> None:
        """No call to `target` for so many seconds."""
        if len(self._until) >= REMEMBERED:
            now = self._now()
            kept = {name: until for name, until in self._until.items() if until > now}
            self._until = kept if len(kept) < REMEMBERED else {}
        self._until[target] = max(self._until.get(target, 0.0), self._now() + seconds)

    def left(self, *targets: str) -> float:
        """Seconds until all of them may be called; 0 where they may be now."""
        return max(0.0, *(self._until.get(target, 0.0) - self._now() for target in targets))
