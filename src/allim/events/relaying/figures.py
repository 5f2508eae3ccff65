"""How much waits in the outbox, for metrics and the doctor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.relay.box import Backlog

SQL = Statements.load("allim.events.relaying", "figures.sql")


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """Lag in seconds by slot, slots that nobody reads, and keys that are blocked."""

    lag: Mapping[int, float]
    unread: int
    blocked: int


class OutboxFigures:
    """Reads figures of the outbox. Raises DatabaseUnavailable."""

    lane = "events"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._slots: SlotFigures | None = None

    async def backlog(self) -> Mapping[str, Backlog]:
        """Waiting, failed and dead, and how long the oldest that is due has waited."""
        waiting, failed, dead = (await self._database.run_pinned(SQL["backlog"], {}))[0]
        slots = await self._database.run_pinned(SQL["slots"], {})
        blocked, overdue = (await self._database.run_pinned(SQL["blocked"], {}))[0]
        lag = {slot: age for slot, _, age in slots}
        self._slots = SlotFigures(lag, sum(not read for _, read, _ in slots), blocked)
        oldest = max(*lag.values(), overdue)
        return {self.lane: Backlog(waiting, failed, dead, oldest if oldest > 0 else None)}

    def more(self) -> Iterable[Metric]:
        """What else was read with the backlog."""
        lag = GaugeMetricFamily(
            "allim_slot_lag_seconds", "Age of the first ready event of a slot.", labels=["slot"]
        )
        blocked = GaugeMetricFamily("allim_blocked_keys", "Keys that wait behind a failed event.")
        unread = GaugeMetricFamily("allim_slots_unread", "Slots that no relay of events holds.")
        if self._slots is not None:
            for slot, seconds in self._slots.lag.items():
                lag.add_metric([str(slot)], seconds)
            blocked.add_metric([], self._slots.blocked)
            unread.add_metric([], self._slots.unread)
        return (lag, blocked, unread)
