"""Which slots of a schedule are due: the latest fires, what came before it was missed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from allim.scheduler.cron import Cron

WINDOW = timedelta(minutes=10)
"""How late a slot may still fire, and a fire be taken over."""
COUNT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class MissedSlots:
    """Slots that went by: the first of them, and how many."""

    first: datetime
    count: int

    def __str__(self) -> str:
        number = f"{COUNT_LIMIT} or more" if self.count >= COUNT_LIMIT else str(self.count)
        slots = "slot" if self.count == 1 else "slots"
        return f"no scheduler came to it in time ({number} {slots} from here on)"


@dataclass(frozen=True, slots=True)
class DueSlots:
    """What is due now: the slot to fire, and those that were missed before it."""

    fire: datetime | None
    missed: MissedSlots | None


def due_slots(cron: Cron, *, decided_until: datetime, now: datetime) -> DueSlots:
    """What of (decided_until, now] fires: the latest slot, unless that is too long ago."""
    fire = None
    for slot in cron.slots(max(decided_until, now - WINDOW)):
        if slot > now:
            break
        fire = slot
    end = fire or now + timedelta.resolution
    first, count = None, 0
    for slot in cron.slots(decided_until):
        if slot >= end or count == COUNT_LIMIT:
            break
        first = first or slot
        count += 1
    return DueSlots(fire, MissedSlots(first, count) if first else None)
