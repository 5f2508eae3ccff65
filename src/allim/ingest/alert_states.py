"""Which alerts are news: senders repeat a group as long as it lasts, and after their own crash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic_core import to_json

from allim.database.pool import Connection
from allim.database.statements import Statements
from allim.ingest.alerts import Alert, AlertGroup, AlertStatus
from allim.ingest.routing import Source

SQL = Statements.load("allim.ingest", "alert_states.sql")


class Turn(StrEnum):
    """What is new about an alert."""

    FIRING = "FIRING"
    REMINDER = "STILL FIRING"
    RESOLVED = "RESOLVED"


@dataclass(frozen=True, slots=True)
class News:
    """An alert that must be told, and why."""

    alert: Alert
    turn: Turn


class AlertStates:
    """Remembers what was told of each alert; `remind` is in seconds, 0: never again."""

    def __init__(self, remind: float) -> None:
        self._remind = remind

    async def news(
        self, tx: Connection, source: Source, tenant: int | None, group: AlertGroup
    ) -> Sequence[News]:
        """What of a group is new, in its order; remembered as told if `tx` commits."""
        # One that stands twice in a group counts as it stands last.
        alerts = {alert.fingerprint: alert for alert in group.alerts}
        if not alerts:
            return []
        wanted = [
            {"fingerprint": a.fingerprint, "status": a.status, "starts_at": a.starts_at}
            for a in alerts.values()
        ]
        cursor = await tx.execute(
            SQL["news"],
            {
                "tenant": tenant,
                "source": source.value,
                "scope": group.scope,
                "alerts": to_json(wanted).decode(),
                "remind": self._remind,
            },
        )
        times: dict[str, int] = dict(await cursor.fetchall())
        if times:
            await tx.execute(SQL["forget"])
        return [
            News(alert, _turn(alert, times[fingerprint]))
            for fingerprint, alert in alerts.items()
            if fingerprint in times
        ]


def _turn(alert: Alert, times: int) -> Turn:
    if alert.status is AlertStatus.RESOLVED:
        return Turn.RESOLVED
    return Turn.FIRING if times == 1 else Turn.REMINDER
