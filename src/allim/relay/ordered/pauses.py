"""Publishers that cannot be had now, and what was passed over meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from allim.base.clock import Clock
from allim.relay.ordered.limits import OrderedLimits
from allim.relay.ordered.message import Ordered
from allim.relay.ordered.observer import OrderedObserver


class Pauses:
    """Leaves a publisher alone for a while when it cannot be had; others go on.

    Messages for it that are met meanwhile are passed over, and read again once it is tried again.
    """

    def __init__(
        self,
        publishers: Collection[str],
        limits: OrderedLimits,
        observer: OrderedObserver,
        clock: Clock,
    ) -> None:
        self._names = frozenset(publishers)
        self._limits = limits
        self._observer = observer
        self._clock = clock
        self._until: dict[str, float] = {}
        self._length: dict[str, float] = {}
        self._passed_over: dict[str, dict[int, int]] = {}

    def fault(self, name: str, reason: str) -> None:
        """It cannot be had."""
        if self._until.get(name, 0.0) > self._clock():
            return  # another turn of the same moment
        if name not in self._length:
            self._observer.paused(name, is_paused=True, reason=reason)
        length = min(self._length.get(name, self._limits.pause / 2) * 2, self._limits.pause_max)
        self._length[name] = length
        self._until[name] = self._clock() + length

    def works(self, name: str) -> None:
        """It took something."""
        if self._length.pop(name, None) is not None:
            self._until.pop(name, None)
            self._observer.paused(name, is_paused=False)

    def closed(self) -> frozenset[str]:
        """Those left alone now."""
        now = self._clock()
        return frozenset(name for name, until in self._until.items() if until > now)

    def all_closed(self) -> bool:
        """Whether there is nobody to publish anything."""
        return self.closed() == self._names

    def pass_over(self, name: str, message: Ordered) -> None:
        """A message for a closed publisher was met; it stays where it is."""
        slots = self._passed_over.setdefault(name, {})
        slots[message.slot] = min(slots.get(message.slot, message.seq), message.seq)

    def to_read_again(self, closed: Collection[str]) -> Iterable[tuple[int, int]]:
        """Slots and lowest numbers that were passed over for publishers that may be had again."""
        again: list[tuple[int, int]] = []
        for name in [name for name in self._passed_over if name not in closed]:
            slots: Mapping[int, int] = self._passed_over.pop(name)
            again += slots.items()
        return again

    def seconds_left(self) -> float:
        """Until the next one is tried again; infinite where none is closed."""
        now = self._clock()
        return min((until - now for until in self._until.values() if until > now), default=INFINITE)


INFINITE = float("inf")
