"""A circuit breaker for each target, in this process."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from allim.base.clock import Clock


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """Opens for `open_seconds` when `share` of at least `calls` in `window` seconds failed."""

    share: float = 0.7
    calls: int = 10
    window: float = 300.0
    open_seconds: float = 30.0


class Breaker:
    """Closed, open, or half open: after the pause one call is let through to try.

    Counts calls in ten slices of the window, so it forgets smoothly and stays small.
    """

    SLICES = 10

    def __init__(self, limits: BreakerLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._slices: deque[list[float]] = deque()
        self._open_until: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are held back, but for a probe."""
        return self._open_until is not None

    def wait(self) -> float:
        """Seconds until a call may be made; 0 lets it go, and when half open makes it the probe."""
        if self._open_until is None:
            return 0.0
        left = self._open_until - self._clock()
        if left > 0:
            return left
        if self._probing:
            return self._limits.open_seconds / 10
        self._probing = True
        return 0.0

    def seconds_left(self) -> float:
        """Seconds until it lets a probe through; asks without being one."""
        return 0.0 if self._open_until is None else max(self._open_until - self._clock(), 0.0)

    def record(self, *, failed: bool) -> bool:
        """Count one finished call; True when this opened the breaker.

        While it is open only the probe counts: calls that began before tell nothing new.
        """
        if self._open_until is not None:
            if not self._probing:
                return False
            self._probing = False
            if failed:
                self._open_until = self._clock() + self._limits.open_seconds
            else:
                self._open_until = None
                self._slices.clear()
            return False
        self._count(failed)
        if not failed:
            return False
        calls = sum(slice_[1] for slice_ in self._slices)
        failures = sum(slice_[2] for slice_ in self._slices)
        if calls < self._limits.calls or failures < calls * self._limits.share:
            return False
        self._open_until = self._clock() + self._limits.open_seconds
        return True

    def abandon_probe(self) -> None:
        """The probe never called anybody; the next one may try."""
        self._probing = False

    def _count(self, failed: bool) -> None:
        now = self._clock()
        width = self._limits.window / self.SLICES
        if not self._slices or now - self._slices[-1][0] >= width:
            self._slices.append([now, 0, 0])
            while now - self._slices[0][0] > self._limits.window:
                self._slices.popleft()
        self._slices[-1][1] += 1
        self._slices[-1][2] += failed
