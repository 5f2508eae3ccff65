"""How things stand: what waits, what is stuck and who works, as the overview shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from allim.database.pool import Database
from allim.database.statements import Statements

SQL = Statements.load("allim.console", "standing.sql")

MOST = 100_000
"""What is counted is counted up to here."""


@dataclass(frozen=True, slots=True)
class ChannelStanding:
    """The deliveries of one channel. `oldest` is the age of the oldest that is due, in seconds."""

    channel: str
    due: int
    later: int
    dead: int
    held: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class EventStanding:
    """The outbox. `parked` wait behind an event that failed, that one counted."""

    ready: int
    parked: int
    dead: int
    blocked_keys: int
    unread_slots: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class Troubles:
    """Open alerts of high severity, disabled targets, and whether there ever was anything."""

    high_alerts: int
    disabled_endpoints: int
    has_notifications: bool
    has_events: bool


@dataclass(frozen=True, slots=True)
class EventRelay:
    """An incarnation of a relay of events; no `id` for the slots that nobody holds."""

    id: str | None
    lease_until: datetime | None
    beat_at: datetime | None
    alive: bool
    slots: Sequence[int]
    lag: float | None

    @property
    def slot_ranges(self) -> str:
        """The slots as people write them: ``0-31, 40``."""
        ranges: list[list[int]] = []
        for slot in self.slots:
            if ranges and slot == ranges[-1][1] + 1:
                ranges[-1][1] = slot
            else:
                ranges.append([slot, slot])
        return ", ".join(f"{a}" if a == b else f"{a}\N{EN DASH}{b}" for a, b in ranges)


class Standing:
    """Reads how things stand. Raises DatabaseUnavailable."""

    def __init__(self, database: Database, channels: Sequence[str]) -> None:
        self._database = database
        self._channels = list(channels)

    async def deliveries(self) -> Sequence[ChannelStanding]:
        """Each channel, in the order of the table."""
        rows = await self._database.run_pinned(
            SQL["deliveries"], {"channels": self._channels, "most": MOST}
        )
        return [ChannelStanding(*row) for row in rows]

    async def events(self) -> EventStanding:
        """The outbox."""
        [row] = await self._database.run_pinned(SQL["events"], {"most": MOST})
        return EventStanding(*row)

    async def troubles(self) -> Troubles:
        """What else may want somebody."""
        [row] = await self._database.run_pinned(SQL["troubles"], {"most": MOST})
        return Troubles(*row)

    async def event_relays(self) -> Sequence[EventRelay]:
        """Who holds the slots; last, where there are such, the slots of nobody."""
        rows = await self._database.run_pinned(SQL["event_relays"], {})
        relays = [
            EventRelay(identity, until, beat, bool(alive), slots, lag)
            for identity, until, beat, alive, slots, lag in rows
        ]
        return [relay for relay in relays if relay.id is not None or relay.slots]
