"""How the sync fares, for metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.relay.box import Backlog

SQL = Statements.load("allim.enrolment", "figures.sql")


class SyncFigures(Collector):
    """Reads how many runs failed in a row, of up to 200 categories. Raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._failed: Mapping[int, int] = {}

    async def backlog(self) -> Mapping[str, Backlog]:
        """Read the figures, when those of the boxes are read; there is nothing that waits."""
        self._failed = dict(await self._database.run_pinned(SQL["failed_runs"], {}))
        return {}

    def collect(self) -> Iterable[Metric]:
        """The figures as they were last read."""
        failed = GaugeMetricFamily(
            "allim_sync_failed_runs",
            "Runs of a category that failed in a row, 10 at most; 0 after one that succeeded.",
            labels=["category"],
        )
        for category, runs in self._failed.items():
            failed.add_metric([str(category)], runs)
        yield failed
