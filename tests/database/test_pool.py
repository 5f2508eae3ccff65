"""The pool's own promises: what counts as a database that is gone, and what is never shown."""

from __future__ import annotations

import psycopg
import pytest
from tests.conftest import named

from allim.base.errors import ConfigurationError, DatabaseUnavailable
from allim.composition.opening import Store
from allim.database.pool import Database, check_url


async def test_a_database_that_became_read_only_is_one_that_is_gone(database_url: str) -> None:
    name = database_url.split("?")[0].rpartition("/")[2]
    with psycopg.connect(named(database_url, "postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    async with Database(database_url) as database:
        with pytest.raises(DatabaseUnavailable):
            await database.run_pinned("UPDATE delivery SET status = 'DEAD' RETURNING id", {})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hun%zzter2@host/db",
        "postgresql://user:hun ter2@host/db",
        "postgresql://user:hun[ter2@host/db",
        "postgresql://host/db?user=me&password=hun-ter2",
        "postgresql://host/db?sslpassword=hun-ter2",
        "postgresql://host/db?no_such_option=1&password=hun-ter2",
    ],
)
def test_no_password_of_a_url_is_ever_shown(url: str) -> None:
    try:
        check_url(url)
        told = Store(url).shown
    except ConfigurationError as error:
        told = str(error)

    assert "hun" not in told
    assert "ter2" not in told


def test_a_url_is_shown_without_its_password() -> None:
    shown = Store("postgresql://user:hunter2@host:5433/db?connect_timeout=3").shown

    assert shown == "postgresql://user:***@host:5433/db?connect_timeout=3"
