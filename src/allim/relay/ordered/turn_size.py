"""How many messages a turn takes, and how many of them from one slot."""

from __future__ import annotations

from collections.abc import Sequence

from allim.relay.ordered.limits import SLOTS, OrderedLimits
from allim.relay.ordered.message import Ordered


class TurnSize:
    """Grows while there is a backlog, and shrinks where messages are large.

    Under a backlog every turn takes a little of each of its slots: what was written together stands
    together, and is read and updated together. No turn has all slots, so that several can be
    under way.
    """

    def __init__(self, limits: OrderedLimits) -> None:
        self._limits = limits
        self.batch = limits.batch
        self._spread = 0

    @property
    def is_spread(self) -> bool:
        """Whether there is a backlog."""
        return self._spread > 0

    def slots(self, idle: list[int], held: int) -> list[int]:
        """Those of the idle slots that the next turn is for."""
        return idle[: -(-held // self._limits.turns)] if self._spread else idle

    def each(self, slots: int) -> int:
        """How many messages of each of so many slots."""
        if not self._spread:
            return self.batch
        return min(-(-self.batch // slots) * self._spread, self.batch)

    def fit(self, messages: Sequence[Ordered], *, cut: bool) -> None:
        """Take in what was read; `cut` says that there is more."""
        if not cut:
            self.batch = max(self.batch // 2, self._limits.batch)
        else:
            self.batch = min(self.batch * 2, self._limits.batch_max)
        if messages:
            average = sum(message.size for message in messages) / len(messages)
            self.batch = max(min(self.batch, int(self._limits.turn_bytes / average)), 1)

    def fit_spread(self, *, cut: bool, full: bool, scarce: bool) -> None:
        """Take in whether slots held more, whether the turn is full, or not even half full.

        The backlog of a few slots only is taken in full turns, too.
        """
        if not cut:
            self._spread = 0
        elif self._spread and scarce:
            self._spread = min(self._spread * 2, SLOTS)
        else:
            self._spread = max(self._spread // 2 if full else self._spread, 1)
