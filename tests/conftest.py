"""One PostgreSQL server for the whole run, one fresh database for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from scripts.short_lived import short_lived

from allim.database.embedded import EmbeddedServer
from allim.database.embedded.cluster import SETTINGS
from allim.database.migrate import migrate
from allim.database.pool import Database
from tests.programs import Start, an_empty_directory, programs

TEMPLATE = "allim_template"
_TEMPLATE_LOCK = 0x74656D706C


def named(url: str, database: str) -> str:
    """The URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server: `ALLIM_TEST_DATABASE_URL`, else an embedded one of this run.

    Workers of one run share it through the embedded server's own lock; the last one out
    stops it.
    """
    given = os.environ.get("ALLIM_TEST_DATABASE_URL")
    if given:
        yield given
        return
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid4().hex
    # Not pytest's own directory: that is too deep for the path of a socket.
    home = short_lived() / f"allim-test-{run[:12]}"
    # It need not outlive a power cut, and every test makes a database and drops it.
    with patch.dict(SETTINGS, fsync="off", full_page_writes="off"):
        server = EmbeddedServer.open(home)
    yield server.url
    server.close()
    if not (server.data / "postmaster.pid").exists():
        shutil.rmtree(server.data, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def template_url(server_url: str) -> str:
    """The server, with a template database that has every migration."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_TEMPLATE_LOCK])
        row = connection.execute(
            "SELECT datallowconn FROM pg_database WHERE datname = %s", [TEMPLATE]
        ).fetchone()
        if row is None or row[0]:
            # Still open to connections: left behind half made, or by an older schema.
            connection.execute(f"DROP DATABASE IF EXISTS {TEMPLATE}")
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
            migrate(named(server_url, TEMPLATE))
            connection.execute(f"ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false")
    return server_url


@contextmanager
def a_database(template_url: str) -> Iterator[str]:
    """A fresh, migrated database; its URL."""
    name = f"test_{uuid4().hex[:16]}"
    with psycopg.connect(template_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        yield named(template_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(template_url: str) -> Iterator[str]:
    """The URL of a fresh, migrated database of this test alone."""
    with a_database(template_url) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database of this test alone."""
    async with Database(database_url) as database:
        yield database


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory."""
    with an_empty_directory() as path:
        yield path


@pytest.fixture
async def start(place: Path, database_url: str) -> AsyncIterator[Start]:
    """Starts programs in an empty directory; the database goes only after they are gone."""
    async with programs(place) as start:
        yield start
