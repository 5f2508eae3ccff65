"""Creating notifications in a caller's own transaction."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import asyncpg
import psycopg
import pytest

from allim.base.errors import IdempotencyMismatch, InvalidRequest, NotInTransaction
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.hub.creation import Created
from allim.hub.service import Hub, NotificationFields
from allim.hub.status import DeliveryStatus
from tests.hub.conftest import count

ORDER: NotificationFields = {
    "source": "shop",
    "type": "ORDER_DONE",
    "title": "주문 완료",
    "data": {"order_id": 1},
    "deliveries": ({"channel": "email", "recipient": "kim@example.com"}, {"channel": "LOG"}),
}


def order(**changes: Any) -> Any:
    return {**ORDER, **changes}


@pytest.fixture
def hub(channels: Mapping[str, Channel]) -> Hub:
    return Hub(channels)


async def test_what_a_transaction_writes_is_there_with_it_or_not_at_all(
    hub: Hub, database: Database, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        created = hub.notify(connection, **ORDER)
        assert isinstance(created, Created)
        assert [d.channel for d in created.deliveries] == ["EMAIL", "LOG"]
        assert await count(database, "notification") == 0
        connection.rollback()
        assert await count(database, "notification") == 0
        hub.notify(connection, **ORDER)
        connection.commit()
        assert await count(database, "notification") == 1
        assert await count(database, "delivery") == 2


async def test_an_async_connection_is_awaited(
    hub: Hub, database: Database, database_url: str
) -> None:
    async with database.transaction() as tx:
        created = await hub.notify(tx, **ORDER)
        assert created.deliveries[0].status is DeliveryStatus.PENDING
        assert await count_elsewhere(database_url) == 0
    assert await count_elsewhere(database_url) == 1


async def test_an_idle_autocommit_connection_is_refused(
    hub: Hub, database: Database, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        with pytest.raises(NotInTransaction):
            hub.notify(connection, **ORDER)
        with connection.transaction():
            hub.notify(connection, **ORDER)
    async with database.connection() as idle:
        with pytest.raises(NotInTransaction):
            await hub.notify(idle, **ORDER)
    assert await count(database, "notification") == 1


async def test_a_key_answers_with_the_first_in_the_same_transaction_too(
    hub: Hub, database: Database, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        first = hub.notify(connection, **order(idempotency_key="k"))
        again = hub.notify(connection, **order(idempotency_key="k"))
        connection.commit()
        later = hub.notify(connection, **order(idempotency_key="k"))
        with pytest.raises(IdempotencyMismatch):
            hub.notify(connection, **order(title="x", idempotency_key="k"))

    assert (first.replayed, again.replayed, later.replayed) == (False, True, True)
    assert first.id == again.id == later.id
    assert list(later.deliveries) == list(first.deliveries)
    assert await count(database, "notification") == 1


async def test_a_bad_request_leaves_the_transaction_usable(hub: Hub, database_url: str) -> None:
    bad: list[tuple[Any, str]] = [
        ({"title": "\ud800"}, "/title"),
        ({"data": {"x": "\ud800"}}, "/data/x"),
        ({"data": {"x": float("nan")}}, "/data/x"),
        ({"data": {"x": object()}}, ""),
        ({"source": ""}, "/source"),
        ({"colour": "red"}, "/colour"),
        ({"deliveries": [{"channel": "PIGEON"}]}, "/deliveries/0/channel"),
    ]
    recursive: dict[str, Any] = {}
    recursive["x"] = recursive
    bad.append(({"data": recursive}, "/data" + "/x" * 32))
    with psycopg.connect(database_url) as connection:
        for fields, place in bad:
            with pytest.raises(InvalidRequest) as raised:
                hub.notify(connection, **order(**fields))
            assert place in [p.place for p in raised.value.problems]
        assert hub.notify(connection, **ORDER)


async def test_asyncpg_connections_do(hub: Hub, database: Database, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    with pytest.raises(NotInTransaction):
        await hub.notify(connection, **ORDER)
    transaction = connection.transaction()
    await transaction.start()
    created = await hub.notify(connection, **order(idempotency_key="k"))
    again = await hub.notify(connection, **order(idempotency_key="k"))
    await transaction.commit()
    await connection.close()

    assert again.id == created.id
    assert await count(database, "delivery") == 2


def test_what_is_no_connection_is_refused(hub: Hub) -> None:
    with pytest.raises(TypeError, match="no connection"):
        hub.notify(object(), **ORDER)


@pytest.mark.skipif(not importlib.util.find_spec("sqlalchemy"), reason="needs SQLAlchemy")
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
async def test_sqlalchemy_sessions_and_connections_do(
    hub: Hub, database: Database, database_url: str, driver: str
) -> None:
    if not importlib.util.find_spec(driver):
        pytest.skip(f"needs {driver}")
    sqlalchemy: Any = importlib.import_module("sqlalchemy")
    orm: Any = importlib.import_module("sqlalchemy.orm")
    asyncio: Any = importlib.import_module("sqlalchemy.ext.asyncio")
    url = database_url.replace("postgresql://", f"postgresql+{driver}://")
    engine = sqlalchemy.create_engine(url)
    with orm.Session(engine) as session, session.begin():
        created = hub.notify(session, **order(idempotency_key="k"))
        assert hub.notify(session, **order(idempotency_key="k")).id == created.id
        assert await count(database, "notification") == 0
    with engine.begin() as connection:
        assert hub.notify(connection, **order(idempotency_key="k")).replayed
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(NotInTransaction),
    ):
        hub.notify(connection, **ORDER)
    engine.dispose()
    engine = asyncio.create_async_engine(url.replace("psycopg2", "psycopg"))
    async with asyncio.AsyncSession(engine) as session, session.begin():
        await hub.notify(session, **ORDER)
    async with engine.begin() as connection:
        await hub.notify(connection, **ORDER)
    await engine.dispose()
    assert await count(database, "notification") == 3


async def count_elsewhere(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM notification").fetchone()
        assert row is not None
        return int(row[0])


async def test_allim_hub_notify_goes_by_the_settings_of_the_process(
    database: Database, database_url: str
) -> None:
    from allim import notify

    with psycopg.connect(database_url) as connection:
        created = notify(connection, **ORDER)
        assert isinstance(created, Created)
        with pytest.raises(InvalidRequest, match="deliveries/0/recipient"):
            notify(connection, **order(deliveries=[{"channel": "EMAIL", "recipient": "no"}]))
    assert await count(database, "delivery") == 2
