"""Low-water marks that follow transactions in progress.

A claim that asks only for ids above a mark passes over dead row versions cheaply (57,000
rows a second instead of 9,000 while another session pins old ones). But ids are drawn before
they are committed, so a plain mark loses work: a lower id that commits later is never seen.
Hence: a transaction first seen in progress remembers the highest marks from before that
claim (all its ids are above them, or an earlier claim would have met it), and when it has ended
the next claim begins there again. A rescan from the bottom, at start and every `rescan_every`
seconds, is the second net.

This relies on ids being drawn after their transaction's id (see the migration).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from allim.base.clock import Clock


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The transactions a claim could not see: those listed, and `unlisted` from `xmax` on.

    `pg_current_snapshot()` ends at the latest *completed* id + 1, so those between that and the
    next id to be given out are in progress without being listed.
    """

    xmax: int
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str, unlisted: int, own: int | None = None) -> Snapshot:
        """From `pg_current_snapshot()::text` and `age(xmax)`; `own` is the claim's transaction."""
        _, xmax_text, listed = text.split(":")
        xmax = int(xmax_text)
        running = {int(xid) for xid in listed.split(",")} if listed else set()
        running.update(range(xmax, xmax + max(unlisted, 0)))
        running.discard(own or 0)
        return cls(xmax, frozenset(running))


class LowWaterMarks:
    """The marks of one lane, one for each priority."""

    def __init__(self, priorities: int, *, rescan_every: float, clock: Clock) -> None:
        self._marks = [0] * priorities
        self._highest = [0] * priorities
        self._remembered: dict[int, Sequence[int]] = {}
        self._rescan_every = rescan_every
        self._clock = clock
        self._rescan_at = clock() + rescan_every

    def current(self) -> list[int]:
        """The marks to claim from now; never above `highest`."""
        if self._clock() >= self._rescan_at:
            self._rescan_at = self._clock() + self._rescan_every
            self._marks = [0] * len(self._marks)
        return list(self._marks)

    @property
    def highest(self) -> list[int]:
        """How far claims have come: to where a mark may rise again where nothing is left."""
        return list(self._highest)

    def advance(
        self, reached: Sequence[int], snapshot: Snapshot, asked_from: Sequence[int]
    ) -> bool:
        """Take in what a claim from `asked_from` reached; True when lower ids may have come.

        Then claim again: the marks were lowered to where an ended transaction may have written.
        """
        for xid in snapshot.in_progress - self._remembered.keys():
            # Not `asked_from`: that may be lower, and then no mark would rise while
            # transactions come and go.
            self._remembered[xid] = self._highest
        marks = list(reached)
        ended = [xid for xid in self._remembered if xid not in snapshot.in_progress]
        for xid in ended:
            marks = [min(pair) for pair in zip(marks, self._remembered.pop(xid), strict=True)]
        self._highest = [max(pair) for pair in zip(self._highest, reached, strict=True)]
        lowered = any(now < then for now, then in zip(marks, asked_from, strict=True))
        self._marks = marks
        return lowered
