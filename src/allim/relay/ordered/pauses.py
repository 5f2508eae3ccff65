"""Publishers that cannot be had now, and what was passed over meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from allim.base.clock import Clock
from allim.relay.ordered.limits import OrderedLimits
from allim.relay.ordered.message import Message, Ordered
from allim.relay.ordered.observer import OrderedObserver

TOPICS = 1000
"""Topics that are kept in mind of a closed publisher."""


class Pauses:
    """Leaves a publisher alone for a while when it cannot be had; others go on.

    Messages for it that are met meanwhile are passed over. Once it has rested it is given a few of
    them; the others are read again only when it takes one.
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
        self._topics: dict[str, set[str]] = defaultdict(set)
        self._tried: set[str] = set()

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
        """Those left alone now, and those of which it is not known yet whether they can be had."""
        now = self._clock()
        resting = {name for name, until in self._until.items() if until > now}
        return frozenset(resting | self._passed_over.keys())

    def all_closed(self) -> bool:
        """Whether there is nobody to publish anything."""
        return self.closed() == self._names

    def meet(self, name: str, message: Ordered, *, passes_over: bool = True) -> None:
        """A message for a closed publisher was met. It stays where it is, and is passed over."""
        if passes_over:
            slots = self._passed_over.setdefault(name, {})
            slots[message.slot] = min(slots.get(message.slot, message.seq), message.seq)
        if len(self._topics[name]) < TOPICS:
            self._topics[name].add(message.topic)

    def open_ones(
        self,
        route: Callable[[str], str],
        messages: Sequence[Message],
        closed: Collection[str],
        *,
        passes_over: bool = True,
    ) -> Sequence[Message]:
        """Those whose publisher is not among the closed; `closed` is from before they were read."""
        if not closed:
            return messages
        kept = []
        for message in messages:
            name = route(message.topic)
            if name not in closed:
                kept.append(message)
            else:
                self.meet(name, message, passes_over=passes_over)
        return kept

    def topics(self) -> Collection[str]:
        """Topics of closed publishers, as far as they were met."""
        return {topic for name in self.closed() for topic in self._topics.get(name, ())}

    def slots(self) -> Collection[int]:
        """Slots in which something was passed over."""
        return {slot for slots in self._passed_over.values() for slot in slots}

    def to_try(self, slots: Collection[int]) -> tuple[str, int, int] | None:
        """A publisher that has rested, one of these slots, and the lowest number passed over there.

        What waits for a publisher is not all read again before it has taken a little of it.
        """
        now = self._clock()
        for name, passed_over in self._passed_over.items():
            if name not in self._tried and self._until.get(name, 0.0) <= now:
                for slot in passed_over.keys() & slots:
                    return name, slot, passed_over[slot]
        return None

    def tries(self, name: str, *, is_over: bool = False) -> None:
        """Some of what was passed over is on its way to it, or no more."""
        (self._tried.discard if is_over else self._tried.add)(name)

    def read_on(self, name: str, slot: int, last: int | None) -> None:
        """Nothing for it was met up to `last`; None where the slot holds nothing for it."""
        if last is not None:
            self._passed_over[name][slot] = last + 1
            return
        self._passed_over[name].pop(slot, None)
        if not self._passed_over[name]:
            del self._passed_over[name]

    def forget(self, slots: Collection[int]) -> None:
        """These are somebody else's."""
        for name in list(self._passed_over):
            for slot in slots:
                self._passed_over[name].pop(slot, None)
            if not self._passed_over[name]:
                del self._passed_over[name]

    def to_read_again(self) -> Iterable[tuple[int, int]]:
        """Slots and lowest numbers that were passed over for publishers that take something."""
        again: list[tuple[int, int]] = []
        for name in [name for name in self._passed_over if name not in self._length]:
            slots: Mapping[int, int] = self._passed_over.pop(name)
            self._topics.pop(name, None)
            again += slots.items()
        return again

    def seconds_left(self) -> float:
        """Until the next one is tried again; infinite where none is closed."""
        now = self._clock()
        return min((until - now for until in self._until.values() if until > now), default=INFINITE)


INFINITE = float("inf")
