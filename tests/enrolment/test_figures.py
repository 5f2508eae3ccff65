"""How many runs of a category failed in a row, as the metrics say it."""

from __future__ import annotations

from collections.abc import Sequence

from allim.database.pool import Database
from allim.enrolment.figures import SyncFigures

INSERT = """
INSERT INTO run_log (category_id, trigger_type, status, started_at, finished_at)
SELECT %(category)s, 'SCHEDULER', status, now() - %(days_ago)s * interval '1 day',
       CASE WHEN status <> 'RUNNING' THEN now() END
  FROM unnest(%(statuses)s::text[]) WITH ORDINALITY AS run (status, place) ORDER BY place
RETURNING id
"""


async def ran(
    database: Database, category: int, *statuses: str, days_ago: int = 0
) -> Sequence[object]:
    return await database.fetch(
        INSERT, {"category": category, "days_ago": days_ago, "statuses": list(statuses)}
    )


async def figures(database: Database) -> dict[str, float]:
    found = SyncFigures(database)
    assert await found.backlog() == {}
    (metric,) = found.collect()
    return {sample.labels["category"]: sample.value for sample in metric.samples}


async def test_runs_that_failed_in_a_row_are_counted_from_the_last(database: Database) -> None:
    assert await figures(database) == {}
    await ran(database, 1, "FAILED", "SUCCESS", "FAILED", "FAILED", "RUNNING")
    await ran(database, 2, "FAILED", "FAILED", "SUCCESS")
    await ran(database, 3, *["FAILED"] * 14)
    await ran(database, 4, "RUNNING")
    await ran(database, 5, "FAILED", days_ago=8)
    assert await figures(database) == {"1": 2, "2": 0, "3": 10}
    await ran(database, 1, "SUCCESS")
    assert (await figures(database))["1"] == 0
