"""Whatever a sender of alerts repeats, in whatever order: every real change is told, once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allim.database.pool import Database
from allim.ingest.alert_states import AlertStates, Turn
from allim.ingest.alerts import AlertmanagerGroup
from allim.ingest.routing import Source
from tests.ingest.payloads import alert, alertmanager

REMIND = 600
BEGIN = datetime(2026, 11, 21, tzinfo=UTC)


@dataclass
class Known:
    """What the model holds of one alert."""

    status: str
    start: int
    told_at: int


class Model:
    """The rule as prose has it, on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0
        self.known: dict[str, Known] = {}

    def turn(self, fingerprint: str, status: str, start: int) -> Turn | None:
        before = self.known.get(fingerprint)
        changed = before is None or before.status != status or before.start < start
        due = before is not None and status == "firing" and self.now - before.told_at >= REMIND
        if not changed and not due:
            return None
        if before is not None and before.status == status:
            start = max(start, before.start)
        self.known[fingerprint] = Known(status, start, self.now)
        if status == "resolved":
            return Turn.RESOLVED
        return Turn.FIRING if changed else Turn.REMINDER


one_alert = st.tuples(
    st.sampled_from("ab"), st.sampled_from(["firing", "resolved"]), st.integers(0, 2)
)
steps = st.lists(
    st.one_of(st.lists(one_alert, min_size=1, max_size=3), st.sampled_from([200, REMIND])),
    min_size=1,
    max_size=12,
)


def group(alerts: list[tuple[str, str, int]]) -> AlertmanagerGroup:
    bodies: list[dict[str, Any]] = [
        alert(
            status=status,
            fingerprint=fingerprint,
            starts=(BEGIN + timedelta(minutes=start)).isoformat(),
        )
        for fingerprint, status, start in alerts
    ]
    return AlertmanagerGroup.model_validate(alertmanager(*bodies))


async def play(database_url: str, tenant: int, history: list[Any]) -> None:
    """Hold the states against the model, step by step, under a tenant of their own."""
    states, model = AlertStates(REMIND), Model()
    async with Database(database_url) as database:
        for step in history:
            async with database.transaction() as tx:
                if isinstance(step, int):
                    model.now += step
                    await tx.execute(
                        "UPDATE ingest_alert SET told_at = told_at - make_interval(secs => %s)"
                        " WHERE tenant_id = %s",
                        [step, tenant],
                    )
                    continue
                news = await states.news(tx, Source.ALERTMANAGER, tenant, group(step))
            last = {fingerprint: (status, start) for fingerprint, status, start in step}
            expected = {
                fingerprint: turn
                for fingerprint, (status, start) in last.items()
                if (turn := model.turn(fingerprint, status, start)) is not None
            }
            assert {each.alert.fingerprint: each.turn for each in news} == expected


def test_every_change_is_told_once_whatever_is_repeated(database_url: str) -> None:
    tenants = count(1)

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    @given(steps)
    def run(history: list[Any]) -> None:
        asyncio.run(play(database_url, next(tenants), history))

    run()
