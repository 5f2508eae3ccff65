"""Named statements: found by name, without their comments, short enough to be read once."""

from __future__ import annotations

from pathlib import Path

import pytest

import allim
from allim.database.statements import Statements

PSYCOPG_READS_ONCE = 4096
"""psycopg keeps what it read of a statement only up to this many characters."""

FILES = [
    file for file in Path(allim.__file__).parent.rglob("*.sql") if file.parent.name != "migrations"
]


def test_blocks_are_found_by_name_and_lose_their_comments() -> None:
    statements = Statements(
        "-- about the file\n\n-- name: one\n-- why\nSELECT 1;\n\n-- name: two\n  SELECT\n    2\n",
        "test.sql",
    )
    assert dict(statements) == {"one": "SELECT 1", "two": "SELECT\n2"}


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"test\.sql.*'one' stands twice"):
        Statements("-- name: one\nSELECT 1\n-- name: one\nSELECT 2\n", "test.sql")


def test_a_name_that_is_missing_says_where() -> None:
    with pytest.raises(KeyError, match=r"test\.sql has no statement 'none'"):
        Statements("", "test.sql")["none"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_statement_is_short_enough_to_be_read_once(file: Path) -> None:
    statements = Statements(file.read_text(encoding="utf-8"), file.name)
    assert statements
    assert {name: len(s) for name, s in statements.items() if len(s) > PSYCOPG_READS_ONCE} == {}
