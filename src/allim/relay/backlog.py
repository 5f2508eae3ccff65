"""How much waits in a box, as metrics: read from the database now and then, not at every scrape."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Protocol, Self

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import DatabaseUnavailable
from allim.base.tasks import cancel_and_wait
from allim.relay.box import Backlog

log = logging.getLogger("allim.relay")

FRESH_SECONDS = 10.0
INTEREST_SECONDS = 180.0
"""For how long after a scrape the figures are kept fresh: nobody pays for what nobody reads."""


class Backlogged(Protocol):
    """What has a backlog: a box."""

    async def backlog(self) -> Mapping[str, Backlog]:
        """Figures by lane. Raises DatabaseUnavailable."""


class BacklogFigures(Collector):
    """A prometheus collector of the backlogs of boxes, by their names."""

    def __init__(self, boxes: Mapping[str, Backlogged], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._boxes = boxes
        self._clock = clock
        self._figures: Mapping[str, Mapping[str, Backlog]] | None = None
        self._asked_at = clock()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def read(self) -> None:
        """Read the figures; where the database is gone there are none rather than old ones."""
        try:
            self._figures = {name: await box.backlog() for name, box in self._boxes.items()}
        except DatabaseUnavailable:
            self._figures = None

    def collect(self) -> Iterable[Metric]:
        """The figures as they were last read."""
        self._asked_at = self._clock()
        labels = ["box", "channel"]
        waiting = GaugeMetricFamily("allim_waiting", "Never tried, or snoozed.", labels=labels)
        failed = GaugeMetricFamily("allim_failed", "Waiting to be retried.", labels=labels)
        dead = GaugeMetricFamily("allim_dead", "Dead letters, and what is held.", labels=labels)
        oldest = GaugeMetricFamily(
            "allim_oldest_due_seconds",
            "Age of the oldest work that is due and not done; 0 where nothing is.",
            labels=labels,
        )
        for box, lanes in (self._figures or {}).items():
            for lane, backlog in lanes.items():
                at = [box, lane]
                waiting.add_metric(at, backlog.waiting)
                failed.add_metric(at, backlog.failed)
                dead.add_metric(at, backlog.dead)
                oldest.add_metric(at, backlog.oldest_due_age or 0.0)
        up = GaugeMetricFamily(
            "allim_database_up", "Whether the backlog could be read from the database."
        )
        up.add_metric([], 0.0 if self._figures is None else 1.0)
        return (waiting, failed, dead, oldest, up)

    async def _run(self) -> None:
        while True:
            if self._clock() - self._asked_at < INTEREST_SECONDS:
                try:
                    await self.read()
                except Exception:
                    # The figures' own boundary: a relay must not end over its metrics.
                    log.exception("the backlog could not be read")
                    self._figures = None
            await asyncio.sleep(FRESH_SECONDS)
