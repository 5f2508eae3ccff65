"""The container's health check, against programs that run; and the port of those without an API."""

from __future__ import annotations

import asyncio
import sys

from allim.database.pool import Database
from tests.deploy.surroundings import DEPLOY
from tests.programs import PATIENCE_SECONDS, an_empty_directory, clean_environment, programs

HEALTH = DEPLOY / "image" / "health.py"


async def is_healthy(**variables: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        sys.executable, HEALTH, env=clean_environment(**variables)
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await process.wait() == 0


async def test_an_api_and_a_scheduler_say_that_they_are_ready(
    database: Database, database_url: str
) -> None:
    with an_empty_directory() as place:
        async with programs(place) as start:
            api = await start("api", DATABASE_URL=database_url, ALLIM_ALLOWED_HOSTS="allim.test")
            port = api.url.rpartition(":")[2]
            assert await is_healthy(ALLIM_PORT=port, ALLIM_RELAY_METRICS_PORT="1")
            scheduler = await start(
                "schedule",
                "run",
                until="metrics on",
                DATABASE_URL=database_url,
                ALLIM_RELAY_METRICS_PORT="0",
            )
            said = await scheduler.says("metrics on")
            port = str(said["event"]).rpartition(":")[2].partition("/")[0]
            assert await is_healthy(ALLIM_PORT="1", ALLIM_RELAY_METRICS_PORT=port)
            assert await scheduler.terminate() == 0
            assert not await is_healthy(ALLIM_PORT="1", ALLIM_RELAY_METRICS_PORT=port)
