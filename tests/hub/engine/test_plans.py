"""Hot statements read what they need and nothing else, whatever the planner was told.

The table has a quarter of a million finished rows and a hundred thousand that are due.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from allim.database.pool import PIN_PLANS, Database
from allim.hub.delivery_box import DeliveryBox
from allim.hub.settling import STATEMENTS, SettleRows
from allim.relay.outcomes import Outcome
from allim.relay.settlement import Transition
from allim.testing.boxes import LANE
from tests.conftest import a_database

FINISHED = 250_000
DUE = 100_000
PATIENCE_SECONDS = 60.0

FILL = """
INSERT INTO notification (id, source, type) VALUES (%(n)s, 'test', 'TEST');
"""
FINISHED_ROWS: LiteralString = """
INSERT INTO delivery (notification_id, channel, status, attempts, max_attempts, provider_id)
SELECT %(n)s, %(lane)s, (ARRAY['SUCCESS', 'CANCELED', 'EXPIRED'])[1 + i %% 3], 1, 8, 'p-' || i
  FROM generate_series(1, %(count)s) AS i
"""
DUE_ROWS: LiteralString = """
INSERT INTO delivery (notification_id, channel, status, max_attempts, priority, next_retry_at,
                      expires_at)
SELECT %(n)s, %(lane)s, 'PENDING', 8, i %% 3,
       CASE WHEN i %% 4 = 0 THEN now() - interval '1 hour' END,
       CASE WHEN i %% 16 = 0 THEN now() + interval '1 day' END
  FROM generate_series(1, %(count)s) AS i
"""
LEASED_ROWS: LiteralString = """
WITH leased AS (
    INSERT INTO delivery (notification_id, channel, status, max_attempts, attempts, claim_token,
                          lease_owner, lease_until, provider_id)
    SELECT %(n)s, %(lane)s, 'PROCESSING', 8, 1, %(token)s::uuid, 'lost',
           now() - interval '1 s', 'p-0'
      FROM generate_series(1, %(count)s) AS i RETURNING id)
INSERT INTO delivery_attempt (delivery_id, attempt_no, worker) SELECT id, 1, 'lost' FROM leased
RETURNING delivery_id
"""

Asked = tuple[LiteralString, Mapping[str, Any]]


@pytest.fixture(scope="module")
def large_url(template_url: str) -> Iterator[str]:
    """A database in which almost everything is finished, as ANALYZE has seen it."""
    with a_database(template_url) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            # What autovacuum does in its own time would make the counts of buffers vary.
            connection.execute("ALTER TABLE delivery SET (autovacuum_enabled = off)")
            connection.execute("ALTER TABLE delivery_attempt SET (autovacuum_enabled = off)")
            notification = uuid4()
            connection.execute(FILL, {"n": notification})
            with connection.transaction():
                connection.execute("SET LOCAL synchronous_commit = off")
                connection.execute(
                    FINISHED_ROWS, {"n": notification, "lane": LANE, "count": FINISHED}
                )
        yield url


@pytest.fixture(scope="module", params=["never analyzed", "analyzed when all was finished"])
def filled_url(request: pytest.FixtureRequest, large_url: str) -> str:
    """The same with work that came after the planner last looked."""
    with psycopg.connect(large_url, autocommit=True) as connection:
        row = connection.execute("SELECT id FROM notification").fetchone()
        assert row is not None
        connection.execute("DELETE FROM delivery WHERE status IN ('PENDING', 'PROCESSING')")
        if request.param != "never analyzed":
            connection.execute("VACUUM ANALYZE delivery, delivery_attempt, notification")
        connection.execute(DUE_ROWS, {"n": row[0], "lane": LANE, "count": DUE})
    return large_url


@pytest.fixture
async def connection(filled_url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A connection in a transaction with pinned plans, rolled back in the end."""
    async with await AsyncConnection.connect(filled_url) as connection:
        await connection.execute(PIN_PLANS)
        yield connection
        await connection.rollback()


async def leased(connection: AsyncConnection[TupleRow], count: int) -> tuple[list[int], str]:
    """Deliveries whose lease ran out, and their token."""
    notification = await (await connection.execute("SELECT id FROM notification")).fetchone()
    assert notification is not None
    token = str(uuid4())
    cursor = await connection.execute(
        LEASED_ROWS, {"n": notification[0], "lane": LANE, "token": token, "count": count}
    )
    return [row[0] for row in await cursor.fetchall()], token


def a_claim(limit: int, marks: Sequence[int] = (0, 0, 0)) -> Asked:
    """The claim, as a box asks it."""
    parameters = {
        "channel": LANE,
        "token": str(uuid4()),
        "limit": limit,
        "marks": list(marks),
        "highest": list(marks),
        "worker": "worker",
        "lease": 60.0,
        "reserved": "rate_limit_turn",
    }
    return STATEMENTS["claim"], parameters


async def a_statement(connection: AsyncConnection[TupleRow], name: str) -> Asked:
    """A hot statement with parameters that give it something to do."""
    ids, token = await leased(connection, 100)
    arrays = {"ids": ids, "tokens": [token] * len(ids)}
    rows = SettleRows()
    for delivery in ids:
        rows.add(delivery, token, Transition.RETRY, Outcome.retry("x"), delay=60.0, spent=True)
    receipts = {"ids": ids, "provider_ids": ["p-0"] * len(ids)}
    parameters: dict[str, Mapping[str, Any]] = {
        "claim": a_claim(100)[1],
        "settle": rows.parameters(),
        "rescue": {
            "channel": LANE,
            "token": str(uuid4()),
            "limit": 100,
            "lease": 60.0,
            "worker": "w",
        },
        "extend": {**arrays, "lease": 60.0},
        "record_provider_id": {**arrays, "provider_id": "p-1"},
        "expire": {},
        "next_due": {"channel": LANE},
        "receipt_families": receipts,
        "lock_receipts": {"ids": ids},
        "note_receipts": {**receipts, "receipts": ["DELIVERED"] * len(ids)},
    }
    return STATEMENTS[name], parameters[name]


INDEXES = {
    "claim": {"delivery_timed", "delivery_new", "delivery_pkey", "notification_pkey"},
    "settle": {"delivery_pkey", "delivery_attempt_pkey", "notification_pkey"},
    "rescue": {"delivery_leased", "delivery_pkey", "notification_pkey"},
    "extend": {"delivery_pkey"},
    "record_provider_id": {"delivery_pkey", "delivery_attempt_pkey"},
    "expire": {"delivery_expiring", "delivery_pkey"},
    "next_due": {"delivery_timed"},
    "receipt_families": {"delivery_pkey", "delivery_attempt_pkey"},
    "lock_receipts": {"delivery_pkey"},
    "note_receipts": {"delivery_pkey", "delivery_attempt_pkey"},
}


@pytest.mark.parametrize("generic", [True, False], ids=["generic plan", "custom plan"])
@pytest.mark.parametrize("name", INDEXES)
async def test_a_hot_statement_uses_the_indexes_its_comment_names(
    connection: AsyncConnection[TupleRow], name: str, generic: bool
) -> None:
    statement, parameters = await a_statement(connection, name)

    plan = await explain(connection, statement, parameters, generic=generic)

    used = set(found(plan, "Index Name"))
    assert used <= INDEXES[name]
    assert used
    kinds = set(found(plan, "Node Type"))
    assert not kinds & {"Seq Scan", "Bitmap Heap Scan", "Hash Join", "Merge Join"}, kinds


@pytest.mark.parametrize("limit", [2, 100, 500])
async def test_a_claim_touches_no_more_than_on_an_empty_table(
    connection: AsyncConnection[TupleRow], database: Database, limit: int
) -> None:
    async with database.transaction() as small:
        notification = uuid4()
        await small.execute(FILL, {"n": notification})
        await small.execute(DUE_ROWS, {"n": notification, "lane": LANE, "count": 4 * limit})
        await small.execute(PIN_PLANS)
        alone = await buffers(small, *a_claim(limit))

    among_finished = await buffers(connection, *a_claim(limit))

    # Larger trees are a level or two deeper: so many pages more for each descent.
    assert among_finished <= 1.2 * alone + 2 * limit + 30


async def test_a_claim_passes_over_old_versions_that_somebody_pins(large_url: str) -> None:
    """Another session's snapshot keeps every old version of what was claimed and finished."""
    with psycopg.connect(large_url, autocommit=True) as operator:
        row = operator.execute("SELECT id FROM notification").fetchone()
        assert row is not None
        operator.execute("DELETE FROM delivery WHERE status IN ('PENDING', 'PROCESSING')")
        operator.execute("VACUUM ANALYZE delivery")
        operator.execute(
            "INSERT INTO delivery (notification_id, channel, max_attempts)"
            " SELECT %s, %s, 8 FROM generate_series(1, 12000)",
            [row[0], LANE],
        )
    async with Database(large_url) as database, await AsyncConnection.connect(large_url) as pinning:
        box = DeliveryBox(database)
        await pinning.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await pinning.execute("SELECT count(*) FROM notification")

        async def next_claim() -> int:
            marks = box._marks_of(LANE)
            async with await AsyncConnection.connect(large_url) as asking:
                await asking.execute(PIN_PLANS)
                count = await buffers(asking, *a_claim(20, marks.current()))
                await asking.rollback()
            return count

        at_first = await next_claim()
        for _ in range(50):
            claim = await box.claim(LANE, limit=200, lease=60.0, worker="w", policy=None)
            assert len(claim.works) == 200
            rows = SettleRows()
            for work in claim.works:
                rows.add(work.id, work.claim_token, Transition.COMPLETE, Outcome.delivered())
            await database.run_pinned(STATEMENTS["settle"], rows.parameters())
        # The marks follow one claim behind the last.
        in_the_end = await next_claim()

    assert in_the_end <= 2 * at_first


async def test_an_idle_lane_does_not_walk_over_what_is_done_again_and_again(
    large_url: str,
) -> None:
    with psycopg.connect(large_url, autocommit=True) as operator:
        row = operator.execute("SELECT id FROM notification").fetchone()
        assert row is not None
        operator.execute("DELETE FROM delivery WHERE status IN ('PENDING', 'PROCESSING')")
        operator.execute(
            "INSERT INTO delivery (notification_id, channel, max_attempts)"
            " SELECT %s, %s, 8 FROM generate_series(1, 3000)",
            [row[0], LANE],
        )
    async with Database(large_url) as database:
        box = DeliveryBox(database)
        while (await box.claim(LANE, limit=500, lease=60.0, worker="w", policy=None)).works:
            pass
        reached = box._marks_of(LANE).current()

        fresh = DeliveryBox(database)
        await fresh.claim(LANE, limit=500, lease=60.0, worker="w", policy=None)
        marks = box._marks_of(LANE)
        # Not at once where transactions of other databases hold the marks back.
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                marks._rescan_at = 0.0
                await box.claim(LANE, limit=500, lease=60.0, worker="w", policy=None)
                if all(now >= then for now, then in zip(marks.current(), reached, strict=True)):
                    break


async def explain(
    connection: AsyncConnection[TupleRow],
    statement: LiteralString,
    parameters: Mapping[str, Any],
    *,
    generic: bool,
    options: str = "FORMAT JSON",
) -> dict[str, Any]:
    """The plan of a statement, with its values known to the planner or not."""
    if not generic:
        asked = f"EXPLAIN ({options}) {statement}"
        row = await (await connection.execute(asked, parameters, prepare=False)).fetchone()
    else:
        names: list[str] = []

        def numbered(match: re.Match[str]) -> str:
            if match[1] not in names:
                names.append(match[1])
            return f"${names.index(match[1]) + 1}"

        text = re.sub(r"%\((\w+)\)s", numbered, statement).replace("%%", "%")
        async with psycopg.AsyncClientCursor(connection) as cursor:
            await cursor.execute(f"PREPARE hot AS {text}")
            values = ", ".join(["%s"] * len(names))
            call = f"({values})" if names else ""
            await cursor.execute(
                (f"EXPLAIN ({options}) EXECUTE hot {call}"),
                [parameters[name] for name in names],
            )
            row = await cursor.fetchone()
            await cursor.execute("DEALLOCATE hot")
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    result: dict[str, Any] = plan[0]["Plan"]
    return result


async def buffers(
    connection: AsyncConnection[TupleRow], statement: LiteralString, parameters: Mapping[str, Any]
) -> int:
    """How many pages a statement touches when it runs; it is rolled back."""
    async with connection.transaction(force_rollback=True):
        plan = await explain(
            connection,
            statement,
            parameters,
            generic=False,
            options="ANALYZE, BUFFERS, FORMAT JSON",
        )
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def found(plan: Any, key: str) -> list[str]:
    """Every value of a key, anywhere in a plan."""
    if isinstance(plan, list):
        return [value for part in plan for value in found(part, key)]
    if not isinstance(plan, dict):
        return []
    here = [plan[key]] if key in plan else []
    return here + [value for part in plan.values() for value in found(part, key)]
