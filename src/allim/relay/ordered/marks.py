"""Low-water marks of slots, that follow transactions in progress (see relay/low_water.py)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from allim.base.clock import Clock
from allim.relay.low_water import Snapshot
from allim.relay.ordered.limits import SLOTS

UNREAD = float("inf")


class SlotMarks:
    """From where each slot is read.

    A transaction first seen in progress remembers how far reading had come before that fetch: all
    its numbers are higher, since they were drawn after its id. When it has ended, slots are
    read from there again, and what this fetch met above is left for then: it may come after what
    that transaction wrote. This holds for slots that were not read then too: what was seen in
    them earlier has lower numbers yet.
    """

    def __init__(self, *, rescan_every: float, clock: Clock) -> None:
        self._marks = [0] * SLOTS
        self._highest = [0] * SLOTS
        self._remembered: dict[int, Sequence[int]] = {}
        self._rescan_every = rescan_every
        self._clock = clock
        self._rescan_at = clock() + rescan_every

    def ask(self, slots: Iterable[int], passed_over: Collection[int] = ()) -> list[tuple[int, int]]:
        """Slots with the marks to read them from; now and then they are read from the bottom.

        But not those in which something was passed over: that would be read each time.
        """
        if self._clock() >= self._rescan_at:
            self._rescan_at = self._clock() + self._rescan_every
            for slot in set(range(SLOTS)).difference(passed_over):
                self._marks[slot] = 0
        return [(slot, self._marks[slot]) for slot in slots]

    def mark(self, slot: int) -> int:
        """From where a slot is read."""
        return self._marks[slot]

    def lift(self, slot: int, mark: int) -> None:
        """All up to here has been met before."""
        self._marks[slot] = max(self._marks[slot], mark)

    def lower(self, slot: int, mark: int) -> None:
        """Read a slot from here again, or from lower."""
        self._marks[slot] = min(self._marks[slot], mark)

    def advance(
        self,
        asked: Sequence[tuple[int, int]],
        reached: Mapping[int, int],
        cut: Collection[int],
        end: int | None,
        snapshot: Snapshot,
    ) -> Collection[int]:
        """Take in a fetch; the slots where lower numbers may have come than were asked for.

        What was met in those must not leave yet: a transaction that has ended since may have
        written what comes before it. They are to be read again.

        `reached` is the last number met in each slot that had any. Those in `cut` were not read to
        their end; after `end` the others were not looked at.
        """
        for xid in snapshot.in_progress - self._remembered.keys():
            self._remembered[xid] = self._highest
        highest = list(self._highest)
        read_from: dict[int, int] = {}
        for slot, mark in asked:
            read_from[slot] = mark
            last = reached.get(slot, 0)
            highest[slot] = max(highest[slot], last)
            # A slot that was read to its end holds nothing that is ready below what was met.
            self._marks[slot] = last if slot in cut else highest[slot]
            if slot == end:
                break
        self._highest = highest
        early: set[int] = set()
        for xid in [xid for xid in self._remembered if xid not in snapshot.in_progress]:
            for slot, then in enumerate(self._remembered.pop(xid)):
                if then >= read_from.get(slot, UNREAD):
                    continue  # this fetch began low enough, and saw that the transaction had ended
                self.lower(slot, then)
                if slot in read_from:
                    early.add(slot)
        return early
