"""Places in line that relays share through the database."""

from __future__ import annotations

import asyncio
import time

import pytest

from allim.database.pool import Database
from allim.hub.rates import SharedRates
from allim.relay.rates import HORIZON_SECONDS
from allim.relay.sender import RateLimit


async def test_relays_on_their_own_connections_share_one_line(
    database_url: str, database: Database
) -> None:
    rate = RateLimit(per_second=2.0)
    async with Database(database_url) as another:
        relays = [SharedRates(database), SharedRates(another)]
        began = time.time()

        async def ask(relay: SharedRates) -> list[float]:
            turns = []
            for _ in range(10):
                waits = await relay.reserve("LOG hook", rate, 3)
                turns += [time.time() + wait for wait in waits]
            return turns

        given = await asyncio.gather(*(ask(relay) for relay in relays))

    turns = sorted(turn for of_one in given for turn in of_one)
    assert len(turns) == 60
    # One interval for each place: nobody was given another's.
    (last,) = await database.fetch(
        "SELECT extract(epoch FROM next_free)::float8 FROM rate_limit WHERE key = 'LOG hook'"
    )
    assert last[0] >= began - 1.0 + 60 * 0.5 - 0.5
    for number, turn in enumerate(turns):
        assert turn >= began + (number - 1) * 0.5


async def test_no_place_is_given_beyond_the_horizon(database: Database) -> None:
    rates = SharedRates(database)
    rate = RateLimit(per_second=1.0, burst=5)

    first = await rates.reserve("LOG hook", rate, 1000)
    then = await rates.reserve("LOG hook", rate, 1000)

    assert len(first) in range(int(HORIZON_SECONDS) + 4, int(HORIZON_SECONDS) + 7)
    assert [wait for wait in first if wait == 0.0]
    assert max(first) <= HORIZON_SECONDS
    assert len(then) <= 1


async def test_a_burst_is_earned_by_waiting(database: Database) -> None:
    rates = SharedRates(database)
    rate = RateLimit(per_second=1.0, burst=3)
    await rates.reserve("LOG hook", rate, 3)
    async with database.connection() as connection:
        await connection.execute("UPDATE rate_limit SET next_free = now() - interval '1 hour'")

    waits = await rates.reserve("LOG hook", rate, 4)

    assert waits[:3] == [0.0, 0.0, 0.0]
    assert waits[3] == pytest.approx(1.0, abs=0.5)


async def test_each_target_has_its_own_line(database: Database) -> None:
    rates = SharedRates(database)
    rate = RateLimit(per_second=0.1)

    assert await rates.reserve("a", rate, 1) == [0.0]
    assert await rates.reserve("b", rate, 1) == [0.0]
    (wait,) = await rates.reserve("a", rate, 1)
    assert wait > 0


async def test_lines_of_targets_that_nobody_calls_any_more_are_forgotten(
    database: Database,
) -> None:
    rates = SharedRates(database)
    rate = RateLimit(per_second=1.0)
    for key in ("LOG idle", "LOG busy"):
        await rates.reserve(key, rate, 1)
    await database.fetch(
        "UPDATE rate_limit SET next_free = now() - interval '2 days',"
        " updated_at = now() - interval '2 days' WHERE key = 'LOG idle' RETURNING key"
    )

    await rates.reserve("LOG new", rate, 1)

    left = await database.fetch("SELECT key FROM rate_limit ORDER BY key")
    assert left == [("LOG busy",), ("LOG new",)]
