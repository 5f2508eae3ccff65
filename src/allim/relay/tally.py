"""What relays of this process did, added up minute by minute until somebody writes it down."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from allim.base.telemetry import Words
from allim.relay.observer import Settled, Silence
from allim.relay.ordered import box as ordered
from allim.relay.ordered.observer import OrderedSilence
from allim.relay.settlement import Transition

DELIVERY = "delivery"
OUTBOX = "outbox"
EVENTS = "events"
"""The lane of events among the lanes of a process."""
MINUTES_KEPT = 60
"""Minutes that wait to be written where the database is gone; older ones are lost."""
TOPICS = 20
BREAKERS = 100

_FIELD = {
    Transition.COMPLETE: "delivered",
    Transition.ACCEPT: "delivered",
    Transition.RETRY: "retried",
    Transition.BURY: "dead",
    Transition.HOLD: "dead",
    Transition.SKIP: "skipped",
    Transition.SNOOZE: "put_off",
}


class Cell(NamedTuple):
    """What is added up by itself; `minute` is its beginning in seconds since 1970."""

    minute: int
    box: str
    channel: str


@dataclass(slots=True)
class Sums:
    """Attempts of one cell by what became of them, and the time that calls took."""

    delivered: int = 0
    retried: int = 0
    dead: int = 0
    skipped: int = 0
    put_off: int = 0
    calls: int = 0
    call_seconds: float = 0.0
    slowest: float = 0.0

    def add(self, field: str, count: int) -> None:
        """Count attempts that ended so."""
        setattr(self, field, getattr(self, field) + count)

    def call(self, seconds: Sequence[float]) -> None:
        """Count calls."""
        if seconds:
            self.calls += len(seconds)
            self.call_seconds += sum(seconds)
            self.slowest = max(self.slowest, *seconds)


@dataclass(frozen=True, slots=True)
class Broken:
    """A target that is left alone, since when (seconds since 1970)."""

    lane: str
    target: str
    since: float


class Tally:
    """Sums by cell, and what is broken now. Used from the event loop only.

    The sums of a cell only grow, so whoever writes them down writes them whole and may do so
    twice. `offset` is how far the database's clock is ahead of this one.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.offset = 0.0
        self.lanes: set[str] = set()
        """What relays of this process take; empty where there are none."""
        self.slots = 0
        self._clock = clock
        self._minute = 0
        self._cells: dict[Cell, Sums] = {}
        self._changed: set[Cell] = set()
        self._broken: dict[tuple[str, str], Broken] = {}

    def sums(self, box: str, channel: str) -> Sums:
        """Where to add what happens now."""
        # Never back: what was forgotten would be written over.
        self._minute = max(self._minute, int(self._now() // 60) * 60)
        cell = Cell(self._minute, box, channel)
        self._changed.add(cell)
        found = self._cells.get(cell)
        if found is None:
            found = self._cells[cell] = Sums()
            self._forget()
        return found

    def take(self) -> Mapping[Cell, Sums]:
        """What was added to since it was taken last; `put_back` what could not be written."""
        taken = {cell: replace(self._cells[cell]) for cell in self._changed}
        self._changed.clear()
        return taken

    def put_back(self, cells: Iterable[Cell]) -> None:
        """Take these again the next time."""
        self._changed.update(cell for cell in cells if cell in self._cells)

    def breaker(self, lane: str, target: str, *, is_open: bool) -> None:
        """Remember what is broken."""
        if is_open and len(self._broken) < BREAKERS:
            self._broken.setdefault((lane, target), Broken(lane, target, self._now()))
        elif not is_open:
            self._broken.pop((lane, target), None)

    def align(self, database_now: float) -> None:
        """Go by the database's clock, which said this just now."""
        self.offset = database_now - self._clock()

    @property
    def broken(self) -> Sequence[Broken]:
        """What is broken now."""
        return list(self._broken.values())

    def _now(self) -> float:
        return self._clock() + self.offset

    def _forget(self) -> None:
        oldest = self._minute - MINUTES_KEPT * 60
        if next(iter(self._cells)).minute < oldest:
            self._cells = {c: sums for c, sums in self._cells.items() if c.minute >= oldest}
            self._changed &= self._cells.keys()


class DeliveryTally(Silence):
    """Implements relay.observer.Observer."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def settled(self, lane: str, batch: Sequence[Settled]) -> None:
        """Add a batch up."""
        sums = self._tally.sums(DELIVERY, lane)
        landed = [item for item in batch if item.landed]
        ways = Counter([item.settlement.transition for item in landed])
        for transition, count in ways.items():
            sums.add(_FIELD[transition], count)
        sums.call([item.seconds for item in landed if item.seconds])

    def breaker(self, lane: str, target: str, *, is_open: bool) -> None:
        """Remember it."""
        self._tally.breaker(lane, target, is_open=is_open)


class EventTally(OrderedSilence):
    """Implements relay.ordered.observer.OrderedObserver."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._topics = Words(TOPICS)

    def settled(self, settlement: ordered.Settlement[Any], seconds: float) -> None:
        """Add a turn up; its one call counts for the topic that had most of it."""
        topics = Counter([message.topic for message in settlement.sent])
        for topic, count in topics.items():
            self._sums(topic).add("delivered", count)
        for failure in settlement.retried:
            self._sums(failure.message.topic).add("retried" if failure.spent else "put_off", 1)
        for failure in settlement.buried:
            self._sums(failure.message.topic).add("dead", 1)
        if topics:
            self._sums(topics.most_common(1)[0][0]).call([seconds])

    def slots(self, held: int, blocked: int) -> None:
        """Keep the figure."""
        self._tally.slots = held

    def paused(self, publisher: str, *, is_paused: bool, reason: str = "") -> None:
        """Remember it."""
        self._tally.breaker(EVENTS, publisher, is_open=is_paused)

    def _sums(self, topic: str) -> Sums:
        return self._tally.sums(OUTBOX, self._topics.bounded(topic))
