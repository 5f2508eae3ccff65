"""Hot statements find what they need by an index, whatever the planner was told of the tables.

Sixty thousand records, alerts and runs are there that none of them is about.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from allim.database.pool import PIN_PLANS, Database
from allim.database.statements import Statements
from allim.enrolment.alerts import AlertFilter, Alerts
from allim.enrolment.model import AlertType, RunStatus, Severity
from allim.enrolment.runs import RunFilter, Runs
from tests.conftest import a_database

RECORDS = Statements.load("allim.enrolment", "records.sql")
RUNS = Statements.load("allim.enrolment", "runs.sql")
FIGURES = Statements.load("allim.enrolment", "figures.sql")
PAGES = 700
"""Far less than any of the tables has."""

FILL: tuple[LiteralString, ...] = (
    """INSERT INTO source_record (source_type, source_id, category_id, course_id, user_id, payload,
                                   hash, revision, run_id)
       SELECT 'enrolment_status', concat_ws(':', i % 50, i % 500, i), i % 50, i % 500, i, '{}',
              '\\x00', 1, 1
         FROM generate_series(1, 60000) AS i""",
    """INSERT INTO alert (run_id, category_id, alert_type, severity, source_type, source_id,
                          revision, title, message, notification_id)
       SELECT 1, i % 50, 'NEW', 'low', 'enrolment_status', concat_ws(':', i % 50, i % 500, i), 1,
              'title', 'message', gen_random_uuid()
         FROM generate_series(1, 60000) AS i""",
    """INSERT INTO run_log (category_id, trigger_type, status, finished_at)
       SELECT i % 50, 'MANUAL', 'SUCCESS', now() FROM generate_series(1, 60000) AS i""",
)
KEYS = [f"{i % 50}:{i % 500}:{i}" for i in range(1, 60_000, 120)]
NEW_KEYS = [f"{key}:new" for key in KEYS]
STATEMENTS: Mapping[str, tuple[LiteralString, bool, Mapping[str, Any]]] = {
    "differing": (
        RECORDS["differing"],
        True,
        {
            "source_type": "enrolment_status",
            "keys": KEYS + NEW_KEYS,
            "hashes": [b"\0"] * 2 * len(KEYS),
        },
    ),
    "present": (RECORDS["present"], True, {"category_id": 7, "course_id": "7"}),
    "present_courses": (RECORDS["present_courses"], True, {"category_id": 7}),
    "mark_missing": (
        RECORDS["mark_missing"],
        False,
        {
            "keys": [f"7:7:{i}" for i in range(7, 60_000, 1000)],
            "category_id": 7,
            "course_id": "7",
            "run_id": 1,
        },
    ),
    "upsert": (
        RECORDS["upsert"],
        False,
        {
            "category_id": 7,
            "run_id": 1,
            "batch": json.dumps(
                [
                    {
                        "source_type": "enrolment_status",
                        "source_id": key,
                        "user_id": "1",
                        "payload": {},
                        "hash": "01",
                        "revision": 2,
                    }
                    for key in KEYS[:20]
                ]
            ),
        },
    ),
    "count_failure": (
        RUNS["count_failure"],
        False,
        {"category_id": 7, "error_group": "TIMEOUT", "cooldown": 1800},
    ),
    "resolve_failures": (RUNS["resolve_failures"], False, {"category_id": 7, "by": "run"}),
    "bury_runs": (RUNS["bury_runs"], False, {"category_id": 7, "run_id": 1, "error": "x"}),
    "ever_succeeded": (RUNS["ever_succeeded"], False, {"category_id": 999}),
    "failed_runs": (FIGURES["failed_runs"], True, {}),
}


@pytest.fixture(scope="module", params=["never analyzed", "analyzed"])
def large_url(request: pytest.FixtureRequest, template_url: str) -> Iterator[str]:
    """A database full of what nobody asks for."""
    with a_database(template_url) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            for table in ("source_record", "alert", "run_log"):
                # What autovacuum does in its own time would make the plans vary.
                connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            for statement in FILL:
                connection.execute(statement)
            if request.param == "analyzed":
                connection.execute("VACUUM ANALYZE source_record, alert, run_log")
        yield url


@pytest.fixture
async def connection(large_url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A connection whose transaction is rolled back in the end."""
    async with await AsyncConnection.connect(large_url) as connection:
        yield connection
        await connection.rollback()


async def walked(
    connection: AsyncConnection[TupleRow], statement: LiteralString, parameters: Mapping[str, Any]
) -> tuple[set[str], int]:
    """The tables that a statement walks over whole, and the pages that it reads."""
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
    row = await (await connection.execute(explain + statement, parameters)).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    found: set[str] = set()

    def walk(node: Mapping[str, Any]) -> None:
        if node["Node Type"] == "Seq Scan":
            found.add(node["Relation Name"])
        for child in node.get("Plans", ()):
            walk(child)

    walk(plan)
    return found, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_hot_statement_walks_over_no_table(
    name: str, connection: AsyncConnection[TupleRow]
) -> None:
    statement, pinned, parameters = STATEMENTS[name]
    if pinned:
        await connection.execute(PIN_PLANS)
    found, pages = await walked(connection, statement, parameters)
    assert found == set()
    if name not in {"differing", "failed_runs"}:
        assert pages < PAGES


async def test_listings_walk_over_no_table(large_url: str) -> None:
    async with Database(large_url, max_size=1) as database:
        before = await _sequential_scans(database)
        alerts, runs = Alerts(database), Runs(database)
        for wanted in (
            AlertFilter(),
            AlertFilter(alert_type=AlertType.FAILED),
            AlertFilter(severity=Severity.HIGH, resolved=False),
            AlertFilter(category_id=7),
        ):
            await alerts.list(wanted, limit=10)
        for asked in (RunFilter(), RunFilter(status=RunStatus.FAILED), RunFilter(category_id=7)):
            await runs.list(asked, limit=10)
        assert await _sequential_scans(database) == before


async def _sequential_scans(database: Database) -> int:
    await database.fetch("SELECT pg_stat_force_next_flush()")
    rows = await database.fetch(
        "SELECT sum(seq_tup_read) FROM pg_stat_user_tables"
        " WHERE relname IN ('alert', 'run_log', 'source_record')"
    )
    return int(rows[0][0])
