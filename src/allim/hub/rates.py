"""Rates shared by every relay, through the database."""

from __future__ import annotations

from collections.abc import Sequence

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.relay.rates import HORIZON_SECONDS
from allim.relay.sender import RateLimit

STATEMENTS = Statements.load("allim.hub", "rates.sql")


class SharedRates:
    """Lines of targets in `rate_limit`. Implements relay.rates.RateKeeper."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, key: str, rate: RateLimit, count: int) -> Sequence[float]:
        """Take up to `count` places; the seconds to wait for each. Raises DatabaseUnavailable."""
        interval = 1.0 / rate.per_second
        parameters = {
            "key": key,
            "burst": rate.burst,
            "interval": interval,
            "horizon": HORIZON_SECONDS,
            "count": count,
        }
        rows = await self._database.fetch(STATEMENTS["reserve"], parameters)
        if not rows:
            async with self._database.connection() as connection:
                await connection.execute(STATEMENTS["begin_line"], {"key": key})
                # Here, since callers name the targets: the table grows by new lines only.
                await connection.execute(STATEMENTS["forget_idle_lines"])
            rows = await self._database.fetch(STATEMENTS["reserve"], parameters)
        first, places = rows[0]
        return [max(first + place * interval, 0.0) for place in range(places)]
