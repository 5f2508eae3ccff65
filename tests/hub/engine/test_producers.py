"""Producers that commit late, roll back or hold locks: every committed delivery is claimed."""

from __future__ import annotations

import asyncio
import random

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from allim.base.ids import uuid7
from allim.database.pool import Database
from allim.hub.delivery_box import DeliveryBox
from allim.testing.boxes import LANE, LEASE
from tests.hub.engine.harness import DatabaseHarness

PRODUCERS = 8
TRANSACTIONS = 60

INSERT = """
WITH n AS (INSERT INTO notification (id, source, type) VALUES (%(id)s, 's', 't'))
INSERT INTO delivery (notification_id, channel, max_attempts, priority)
SELECT %(id)s, %(lane)s, 8, i %% 3 FROM generate_series(1, %(count)s) AS i RETURNING id
"""


async def insert(connection: AsyncConnection[TupleRow], count: int) -> list[int]:
    """Deliveries in the transaction that is open."""
    cursor = await connection.execute(INSERT, {"id": uuid7(), "lane": LANE, "count": count})
    return [row[0] for row in await cursor.fetchall()]


async def take(box: DeliveryBox, limit: int = 50) -> list[int] | None:
    """What one claim brings; None when there is nothing and nothing to look for."""
    claim = await box.claim(LANE, limit=limit, lease=LEASE, worker="w", policy=None)
    if not claim.works and not claim.look_again:
        return None
    return [work.id for work in claim.works]


async def test_every_committed_id_is_claimed_once_whatever_producers_do(
    database_url: str, database: Database
) -> None:
    committed: set[int] = set()
    over = asyncio.Event()

    async def produce(seed: int) -> None:
        chance = random.Random(seed)
        async with await AsyncConnection.connect(database_url) as connection:
            for _ in range(TRANSACTIONS):
                await connection.execute("SELECT pg_current_xact_id()")
                ids: list[int] = []
                for _ in range(chance.randint(1, 3)):
                    await asyncio.sleep(chance.random() * 0.01)
                    if chance.random() < 0.3:
                        await connection.execute("SAVEPOINT here")
                        in_vain = await insert(connection, 2)
                        back = chance.random() < 0.5
                        await connection.execute("ROLLBACK TO here" if back else "RELEASE here")
                        ids += [] if back else in_vain
                    ids += await insert(connection, chance.randint(1, 5))
                if chance.random() < 0.2:
                    await connection.rollback()
                else:
                    await connection.commit()
                    committed.update(ids)

    async def write_for_long() -> None:
        """One transaction as long as all the others together."""
        async with await AsyncConnection.connect(database_url) as connection:
            ids = await insert(connection, 10)
            await over.wait()
            await connection.commit()
            committed.update(ids)

    claimed: list[int] = []

    async def claim(box: DeliveryBox) -> None:
        while not over.is_set():
            taken = await take(box)
            claimed.extend(taken or [])
            if taken is None:
                await asyncio.sleep(0.001)

    boxes = [DeliveryBox(database), DeliveryBox(database)]
    relays = [asyncio.create_task(claim(box)) for box in boxes]
    long = asyncio.create_task(write_for_long())
    await asyncio.gather(*(produce(seed) for seed in range(PRODUCERS)))
    over.set()
    await asyncio.gather(long, *relays)
    while (taken := await take(boxes[0])) is not None:
        claimed.extend(taken)

    assert len(committed) > 1500
    assert len(claimed) == len(set(claimed))
    assert set(claimed) == committed


async def test_work_that_was_locked_is_claimed_when_the_lock_goes(
    database_url: str, harness: DatabaseHarness
) -> None:
    ids = [await harness.add_one() for _ in range(5)]
    async with await AsyncConnection.connect(database_url) as operator:
        await operator.execute("SELECT FROM delivery WHERE id = %s FOR UPDATE", [ids[1]])
        assert [work.id for work in await harness.claim_all()] == [ids[0], *ids[2:]]
        later = await harness.add_one()
        assert [work.id for work in await harness.claim_all()] == [later]
        await operator.rollback()

    assert [work.id for work in await harness.claim_all()] == [ids[1]]


async def test_timed_work_that_was_locked_is_claimed_when_the_lock_goes(
    database_url: str, harness: DatabaseHarness
) -> None:
    first, second = [await harness.add({"channel": LANE}, due_in=-1.0) for _ in range(2)]
    async with await AsyncConnection.connect(database_url) as operator:
        await operator.execute("SELECT FROM delivery WHERE id = %s FOR UPDATE", [first])
        assert [work.id for work in await harness.claim_all()] == [second]
        await operator.rollback()

    assert [work.id for work in await harness.claim_all()] == [first]


async def test_a_batch_far_below_the_mark_is_claimed_to_its_end(
    database_url: str, database: Database, harness: DatabaseHarness
) -> None:
    async with await AsyncConnection.connect(database_url) as late:
        ids = await insert(late, 1000)
        above = await harness.add_one()
        assert await take(harness.box) == [above]
        await late.commit()

    claimed: list[int] = []
    while (taken := await take(harness.box)) is not None:
        claimed.extend(taken)

    assert sorted(claimed) == ids
    assert harness.box._marks_of(LANE).current()[1] >= above
