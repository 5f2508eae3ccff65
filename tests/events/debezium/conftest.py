"""A database that Debezium can read, prepared as its page says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from scripts.postgres import Server, running

from allim.database.migrate import migrate
from allim.events.event import Event
from allim.events.publishing import Publisher
from tests.conftest import named
from tests.docs.blocks import ROOT, blocks
from tests.events.debezium.connector import settings_of_the_page
from tests.events.producer.conftest import publisher
from tests.requirements import needs_program

__all__ = ["publisher"]

DATABASE = "shop"


class Source:
    """The database, and what the page has Debezium told of it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.url = named(server.url, DATABASE)
        self.settings: Mapping[str, str] = {
            **settings_of_the_page(),
            "database.hostname": "127.0.0.1",
            "database.port": str(server.port),
            "database.dbname": DATABASE,
            # What Kafka Connect has a name and a topic for.
            "name": "outbox",
            "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "offset.storage.file.filename": str(folder / "offsets"),
            "offset.flush.interval.ms": "0",
        }

    def publish(self, publisher: Publisher, *events: Event) -> list[str]:
        """Publish in one transaction; the ids."""
        with psycopg.connect(self.url) as connection:
            publisher.publish(connection, *events)
        return [str(event.event_id) for event in events]


@pytest.fixture(scope="session")
def logical_server(server_url: str) -> Iterator[Server]:
    """A server of the version under test that writes what logical decoding reads."""
    for program in ("java", "javac", "mvn"):
        needs_program(program)
    with psycopg.connect(server_url) as connection:
        major = connection.info.server_version // 10000
    with running(major, as_embedded=True, wal_level="logical") as server:
        yield server


@pytest.fixture
def source(logical_server: Server, tmp_path: Path) -> Iterator[Source]:
    """A migrated database with the page's role and publication."""
    (sql,) = (
        block.body
        for block in blocks(ROOT / "docs/how-to/debezium.md")
        if "CREATE PUBLICATION" in block.body
    )
    with psycopg.connect(logical_server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE}")
        source = Source(logical_server, tmp_path)
        migrate(source.url)
        with psycopg.connect(source.url, autocommit=True) as inside:
            inside.execute(sql.encode())
        yield source
        connection.execute(
            "SELECT pg_terminate_backend(active_pid, 60000) FROM pg_replication_slots WHERE active"
        )
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        connection.execute("DROP ROLE debezium")
