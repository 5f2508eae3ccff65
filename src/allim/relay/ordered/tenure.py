"""The slots that an ordered relay holds, and the lines in them that must wait."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Generic

from allim.relay.ordered.box import OrderedBox
from allim.relay.ordered.marks import SlotMarks
from allim.relay.ordered.message import Line, Message
from allim.relay.ordered.observer import OrderedObserver
from allim.relay.ordered.pauses import Pauses
from allim.relay.ordered.succession import Succession
from allim.relay.ordered.turns import Turn


class Tenure(Generic[Message]):
    """Holds its fair share of the slots: takes free ones, and gives up idle ones first.

    A slot is `busy` while a turn of it is under way: it is neither read nor given up.
    """

    def __init__(
        self,
        name: str,
        box: OrderedBox[Message],
        succession: Succession[Message],
        marks: SlotMarks,
        pauses: Pauses,
        observer: OrderedObserver,
    ) -> None:
        self._name = name
        self._box = box
        self._succession = succession
        self._marks = marks
        self._pauses = pauses
        self._observer = observer
        self.held: set[int] = set()
        self.busy: set[int] = set()
        self.leaving: set[int] = set()
        self.blocked: set[Line] = set()
        """Lines that have parked messages, so that what is fresh of them waits, too."""

    async def balance(self) -> frozenset[int] | None:
        """Take and give up slots; those taken, or None where the lease is lost."""
        holdings = await self._box.balance(self._name)
        if holdings is None:
            return None
        # Before anything of what was theirs is read.
        self._succession.learn(holdings.unfenced)
        taken = holdings.slots - self.held
        if taken:
            # Before anything of them is read: what must wait is known by then.
            # Not «|= await»: what turns end meanwhile is noted here, too.
            blocked = await self._box.blocked(taken)
            self.blocked |= blocked
            for slot in taken:
                self._marks.lower(slot, 0)
            self.held |= taken
        self.leaving = self._surplus(len(self.held) - holdings.share)
        await self._release(self.leaving - self.busy)
        self._observer.slots(len(self.held), len(self.blocked))
        return taken

    def idle(self, first: int = 0) -> list[int]:
        """Slots that may be read, from this one on and around."""
        free = sorted(self.held - self.busy - self.leaving)
        return [slot for slot in free if slot >= first] + [slot for slot in free if slot < first]

    def turn(self, slots: frozenset[int], messages: Sequence[Message]) -> Turn[Message]:
        """A turn of these slots, in which those wait whose line does."""
        waiting: list[Message] = []
        if self.blocked:
            waiting = [message for message in messages if message.line in self.blocked]
            messages = [message for message in messages if message.line not in self.blocked]
        return Turn(slots, messages, waiting)

    def doubt(self, slots: Collection[int]) -> None:
        """What is known of these may be wrong: the next balance takes them over anew."""
        self.held.difference_update(slots)

    def _surplus(self, count: int) -> set[int]:
        if count <= 0:
            return set()
        return set(sorted(self.held, key=lambda slot: (slot in self.busy, slot))[:count])

    async def _release(self, slots: Collection[int]) -> None:
        if not slots:
            return
        # Forgotten first: should the answer get lost, nothing of them is read.
        self.held -= set(slots)
        self.leaving -= set(slots)
        self.blocked = {line for line in self.blocked if line.slot not in slots}
        self._pauses.forget(slots)
        await self._box.release(self._name, slots)
