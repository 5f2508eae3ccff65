"""A relay is killed: its figures lack a few seconds at most, and no delivery is lost."""

from __future__ import annotations

import asyncio

from allim.database.pool import Database
from allim.hub.rollups import Rollups
from tests.crash.conftest import until
from tests.programs import an_empty_directory, programs

MANY = 40

CREATE = """
INSERT INTO delivery (notification_id, channel, recipient, max_attempts)
SELECT gen_random_uuid(), 'LOG', 'n-' || i, 8 FROM generate_series(1, %(count)s) AS i RETURNING id
"""
NOTIFY = """
INSERT INTO notification (id, source, type) SELECT notification_id, 'test', 'TEST' FROM delivery
    ON CONFLICT DO NOTHING RETURNING id
"""


async def test_a_killed_relay_takes_a_few_seconds_of_figures_with_it(
    database: Database, database_url: str
) -> None:
    book = Rollups(database)

    async def add() -> None:
        async with database.transaction() as tx:
            await tx.execute(CREATE, {"count": MANY})
            await tx.execute(NOTIFY)

    async def written() -> int:
        [(count,)] = await database.fetch(
            "SELECT coalesce(sum(delivered), 0)::int FROM metric_rollup WHERE channel = 'LOG'"
        )
        return int(count)

    async def sent() -> int:
        [(count,)] = await database.fetch(
            "SELECT count(*)::int FROM delivery WHERE status = 'SUCCESS'"
        )
        return int(count)

    async def first_are_written() -> bool:
        return await written() == MANY

    async def second_are_sent() -> bool:
        return await sent() == 2 * MANY

    async def third_are_written() -> bool:
        return await sent() == 3 * MANY and await written() >= 2 * MANY

    variables = {"DATABASE_URL": database_url, "ALLIM_LOG_FORMAT": "json"}
    with an_empty_directory() as place:
        async with programs(place) as start:
            await add()
            doomed = await start("relay", "deliveries", until="relay ", **variables)
            await until(first_are_written, "the first figures to be written")
            [relay] = await book.relays()
            assert relay.alive
            assert "LOG" in relay.lanes
            await add()
            await until(second_are_sent, "the second deliveries to be sent")
            await doomed.kill()

            left = await written()
            assert MANY <= left <= 2 * MANY
            await asyncio.gather(add(), start("relay", "deliveries", until="relay ", **variables))
            await until(third_are_written, "the third figures to be written")
            assert await written() == left + MANY
            assert len(await book.relays()) == 2, "the killed one is shown, until it is forgotten"
    assert [r.worker for r in await book.relays()] == [relay.worker], "the other left"
