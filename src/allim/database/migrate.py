"""Migrations: numbered SQL files, applied in order under an advisory lock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import LiteralString

import psycopg

from allim.base.errors import SchemaError
from allim.database.pool import database_errors

_LOCK = 0x616C6C696D  # "allim"
_BOOKKEEPING: LiteralString = (
    "CREATE TABLE IF NOT EXISTS schema_migration ("
    " number integer PRIMARY KEY, name text NOT NULL,"
    " created_at timestamptz NOT NULL DEFAULT now(),"
    " updated_at timestamptz NOT NULL DEFAULT now())"
)
_FILE = re.compile(r"^(\d{4})_(\w+)\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema."""

    number: int
    name: str
    sql: LiteralString


def migrations() -> Sequence[Migration]:
    """Every migration this version knows, in order."""
    found = []
    for file in resources.files("allim.database").joinpath("migrations").iterdir():
        if match := _FILE.match(file.name):
            text = file.read_text(encoding="utf-8")
            found.append(Migration(int(match[1]), match[2], text))
    return sorted(found, key=lambda migration: migration.number)


def schema_sql() -> str:
    """What `migrate` does to an empty database, as SQL for people with migrations of their own."""
    parts = [
        "-- The schema of Allim. For an empty database, or one without Allim's tables.",
        f"{_BOOKKEEPING};",
    ]
    for migration in migrations():
        number, name = migration.number, migration.name
        parts += [
            f"-- {number:04} {name}\n{migration.sql.strip()}",
            f"INSERT INTO schema_migration (number, name) VALUES ({number}, '{name}');",  # noqa: S608
        ]
    return "\n\n".join(parts) + "\n"


def migrate(url: str) -> Sequence[Migration]:
    """Bring the schema up to this version's; the migrations that were applied.

    Each is applied in a transaction of its own, and several processes may call this at once.
    Raises SchemaError when the schema is newer than this version knows, and
    DatabaseUnavailable when the server does not answer.
    """
    known = migrations()
    applied = []
    with database_errors(), psycopg.connect(url, autocommit=True) as connection:
        for migration in known:
            with connection.transaction():
                # In the transaction, so that it also holds through a transaction-mode pooler.
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
                at = _schema_number(connection)
                _refuse_newer(at, known[-1].number)
                if migration.number <= at:
                    continue
                connection.execute(migration.sql)
                connection.execute(
                    "INSERT INTO schema_migration (number, name) VALUES (%s, %s)",
                    [migration.number, migration.name],
                )
                applied.append(migration)
    return applied


def check_schema(url: str) -> None:
    """Raise SchemaError unless the schema is exactly this version's."""
    newest = migrations()[-1].number
    with database_errors(), psycopg.connect(url, autocommit=True) as connection:
        at = _schema_number(connection, create=False)
    _refuse_newer(at, newest)
    if at < newest:
        raise SchemaError(
            f"the database schema is at {at}, this version of Allim needs {newest}:"
            " run `allim migrate`"
        )


def _schema_number(connection: psycopg.Connection[tuple[object, ...]], create: bool = True) -> int:
    if create:
        connection.execute(_BOOKKEEPING)
    elif connection.execute("SELECT to_regclass('schema_migration')").fetchone() == (None,):
        return 0
    row = connection.execute("SELECT coalesce(max(number), 0) FROM schema_migration").fetchone()
    return int(str(row[0])) if row else 0


def _refuse_newer(at: int, newest: int) -> None:
    if at > newest:
        raise SchemaError(
            f"the database schema is at {at}, but this version of Allim knows only up to {newest}:"
            " use the newer version of Allim that migrated it"
        )
