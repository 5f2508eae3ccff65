"""Opening the database that the settings name, migrated; else an embedded one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from allim.base.errors import DatabaseUnavailable, EmbeddedServerError
from allim.base.settings import Environment
from allim.base.tasks import cancel_and_wait
from allim.composition.settings import DatabaseSettings
from allim.database.embedded import EmbeddedServer, EmbeddedSettings
from allim.database.embedded.postmaster import Postmaster
from allim.database.migrate import Migration, check_schema, migrate
from allim.database.pool import Database, check_url, shown_url

log = logging.getLogger("allim")

WATCH_SECONDS = 2.0


@dataclass(slots=True)
class Store:
    """A database that can be used: where it is, and the embedded server if it is that."""

    url: str
    server: EmbeddedServer | None = None
    applied: Sequence[Migration] = ()
    """What was migrated just now, on the embedded database."""

    @property
    def shown(self) -> str:
        """The URL without a password."""
        return shown_url(self.url)


@contextmanager
def open_store(
    environment: Environment, *, migrated: bool = True, leave_running: bool = False
) -> Iterator[Store]:
    """The database of `DATABASE_URL`, else the embedded server of `ALLIM_HOME`. Blocks.

    The embedded database is migrated; of another one the schema is checked, unless
    `migrated` is False. `leave_running` leaves an embedded server up afterwards.

    Raises ConfigurationError, DatabaseUnavailable and SchemaError for a `DATABASE_URL` that
    is set but cannot be used: it never falls back to the embedded server.
    """
    settings = environment.read(DatabaseSettings)
    if settings.database_url is not None:
        store = Store(settings.database_url.get_secret_value())
        check_url(store.url)
        if migrated:
            with naming(store):
                check_schema(store.url)
        log.info("database: %s", store.shown)
        yield store
        return
    server = EmbeddedServer.open(environment.read(EmbeddedSettings).allim_home)
    store = Store(server.url, server)
    try:
        store.applied = migrate(server.url)
        if store.applied:
            log.info("migrated to %d %s", store.applied[-1].number, store.applied[-1].name)
        log.info("database: the embedded PostgreSQL %s in %s", server.major, server.data)
        yield store
    finally:
        if store.server is not None:
            store.server.close(leave_running=leave_running)


@contextmanager
def naming(store: Store) -> Iterator[None]:
    """Say which database it is that cannot be reached."""
    try:
        yield
    except DatabaseUnavailable as error:
        if store.server is not None:
            raise
        raise DatabaseUnavailable(f"DATABASE_URL {store.shown}: {error}") from error


@asynccontextmanager
async def connected(store: Store, environment: Environment, name: str) -> AsyncIterator[Database]:
    """A pool of connections to it; an embedded server that is killed meanwhile is restarted."""
    settings = environment.read(DatabaseSettings)
    database = Database(store.url, name=name, max_size=settings.allim_database_connections)
    watch = asyncio.create_task(_keep_up(store)) if store.server is not None else None
    try:
        async with database:
            yield database
    finally:
        if watch is not None:
            await cancel_and_wait(watch)


async def _keep_up(store: Store) -> None:
    """Start the embedded server again when its process is gone (killed for memory, say)."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        server = store.server
        if server is None or Postmaster.of(server.data) is not None:
            continue
        log.warning("the embedded PostgreSQL is gone; starting it again")
        try:
            store.server = await asyncio.to_thread(EmbeddedServer.open, server.home)
        except EmbeddedServerError as error:
            log.error("the embedded PostgreSQL does not start: %s", error)
            continue
        await asyncio.to_thread(server.close)
        log.info("the embedded PostgreSQL runs again")
