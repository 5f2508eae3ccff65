"""Migrations: applied once, by one of many, and never backwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from tests.conftest import named

from allim.base.errors import ConfigurationError, DatabaseUnavailable, SchemaError
from allim.database.migrate import check_schema, migrate, migrations
from allim.database.pool import check_url


@pytest.fixture
def empty_url(server_url: str) -> str:
    name = f"empty_{uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return named(server_url, name)


def test_an_empty_database_gets_every_migration_and_then_none(empty_url: str) -> None:
    applied = migrate(empty_url)
    assert [m.number for m in applied] == [m.number for m in migrations()]
    assert migrate(empty_url) == []
    check_schema(empty_url)


def test_processes_that_migrate_at_once_apply_each_migration_once(empty_url: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        applied = list(threads.map(lambda _: len(migrate(empty_url)), range(6)))
    assert sum(applied) == len(migrations())


def test_a_schema_newer_than_the_code_is_refused_and_left_alone(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO schema_migration (number, name) VALUES (9999, 'later')")
    with pytest.raises(SchemaError, match=r"schema is at 9999.*newer version"):
        migrate(database_url)
    with pytest.raises(SchemaError, match="9999"):
        check_schema(database_url)


def test_a_schema_that_was_never_migrated_says_what_to_run(empty_url: str) -> None:
    with pytest.raises(SchemaError, match="allim migrate"):
        check_schema(empty_url)


def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE delivery_attempt (its integer)")
    with pytest.raises(psycopg.errors.DuplicateTable):
        migrate(empty_url)
    with psycopg.connect(empty_url, autocommit=True) as connection:
        row = connection.execute("SELECT to_regclass('delivery')").fetchone()
    assert row == (None,)


def test_numbers_of_migrations_are_unique_and_without_gaps() -> None:
    assert [m.number for m in migrations()] == list(range(1, len(migrations()) + 1))


@pytest.mark.parametrize("url", ["mysql://somewhere/x", "localhost:5432", "postgresql://h:port/x"])
def test_what_cannot_be_a_postgresql_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        check_url(url)


def test_deleting_a_notification_takes_its_deliveries_and_attempts_along(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO notification (id, source, type) VALUES (gen_random_uuid(), 's', 't')"
        )
        connection.execute(
            "INSERT INTO delivery (notification_id, channel, max_attempts)"
            " SELECT id, 'LOG', 8 FROM notification"
        )
        connection.execute(
            "INSERT INTO delivery_attempt (delivery_id, attempt_no, worker)"
            " SELECT id, 1, 'w' FROM delivery"
        )
        connection.execute("DELETE FROM notification")
        for table in ("delivery", "delivery_attempt"):
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert row == (0,), table


def test_a_server_that_does_not_answer_is_a_clear_error() -> None:
    with pytest.raises(DatabaseUnavailable):
        migrate("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")
