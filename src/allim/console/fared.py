"""How channels and topics fared in a window: what they did, all of its steps together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from allim.hub.rollups import Series


@dataclass(frozen=True, slots=True)
class Fared:
    """What one channel or topic did."""

    delivered: int = 0
    retried: int = 0
    dead: int = 0
    calls: int = 0
    call_seconds: float = 0.0
    slowest: float = 0.0

    @property
    def attempts(self) -> int:
        """Attempts that ended, however."""
        return self.delivered + self.retried + self.dead

    @property
    def share(self) -> float | None:
        """Attempts that failed, in per cent."""
        failed = self.retried + self.dead
        return 100 * failed / self.attempts if self.attempts else None

    @property
    def average(self) -> float | None:
        """Seconds that a call took."""
        return self.call_seconds / self.calls if self.calls else None


def fared_in(series: Series, box: str) -> Mapping[str, Fared]:
    """What each channel of a box did (of the outbox: each topic), by name."""
    found: dict[str, Fared] = {}
    for point in series.points:
        if point.box == box:
            before = found.get(point.channel, Fared())
            found[point.channel] = Fared(
                before.delivered + point.delivered,
                before.retried + point.retried,
                before.dead + point.dead,
                before.calls + point.calls,
                before.call_seconds + point.call_seconds,
                max(before.slowest, point.slowest),
            )
    return {name: found[name] for name in sorted(found) if found[name].attempts}
