"""A console for tests: an API with every page, on a test's own database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from allim.app import create_app
from allim.base.settings import Environment
from allim.composition.syncing import open_sync
from allim.database.pool import Database
from allim.enrolment.calls import SyncCalls
from tests.foundations import open_channels
from tests.hub.conftest import ENVIRONMENT
from tests.serving import serving


@asynccontextmanager
async def serving_console(database: Database, **settings: str) -> AsyncIterator[str]:
    """A server with settings of the test's choice; its URL."""
    environment = Environment({**ENVIRONMENT, **settings})
    async with (
        open_channels(environment) as channels,
        open_sync(database, channels, environment) as sync,
        serving(create_app(database, channels, environment, sync_calls=SyncCalls(sync))) as url,
    ):
        yield url
