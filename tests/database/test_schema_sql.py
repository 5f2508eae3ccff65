"""The schema as SQL, for people who bring their own migrations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from tests.conftest import named
from tests.programs import clean_environment

from allim.database.migrate import check_schema, migrate

CATALOGUE = """
SELECT 'column', table_name, column_name,
       concat_ws(' ', data_type, is_nullable, column_default, character_maximum_length)
  FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes
 WHERE schemaname = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)
  FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'function', proname, '', pg_get_functiondef(oid)
  FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'view', viewname, '', definition FROM pg_views WHERE schemaname = 'public'
UNION ALL SELECT 'options', relname, '', array_to_string(reloptions, ',')
  FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'slots', slot::text, '', '' FROM relay_slot
UNION ALL SELECT 'migration', number::text, name, '' FROM schema_migration
 ORDER BY 1, 2, 3, 4
"""


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    name = f"test_{uuid4().hex[:16]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield named(server_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_printed_schema_is_the_migrated_one(empty_url: str, database_url: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "allim", "migrate", "--sql"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    with psycopg.connect(empty_url) as connection:
        connection.execute(printed.encode())
    check_schema(empty_url)
    assert not migrate(empty_url)
    with psycopg.connect(empty_url) as ours, psycopg.connect(database_url) as migrated:
        assert ours.execute(CATALOGUE).fetchall() == migrated.execute(CATALOGUE).fetchall()
