"""Publishing in every kind of transaction: there with it, or not at all."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as alchemy_asyncio

from allim.events import OutboxError, RawEvent
from allim.events.encryption import Encryption, KeyRing
from allim.events.errors import MessageSaveFailed, NotAConnection, PublishOutsideTransaction
from allim.events.message import prepare
from allim.events.publishing import BATCH, Publisher, lock_of, store
from tests.events.producer.conftest import Outbox, UserCreated, user_created


def alchemy(url: str, driver: str = "psycopg") -> str:
    return url.replace("postgresql://", f"postgresql+{driver}://")


SYNC = ["psycopg", "session", "scoped_session", "connection"]
ASYNC = ["psycopg", "asyncpg", "asyncpg pool", "session", "scoped_session", "connection"]


@contextmanager
def sync_transaction(kind: str, url: str) -> Iterator[Any]:
    if kind == "psycopg":
        with psycopg.connect(url, autocommit=True) as raw, raw.transaction():
            yield raw
        return
    engine = sqlalchemy.create_engine(alchemy(url))
    try:
        if kind == "session":
            with orm.Session(engine) as session, session.begin():
                yield session
        elif kind == "scoped_session":
            scoped = orm.scoped_session(orm.sessionmaker(engine))
            with scoped.begin():
                yield scoped
            scoped.remove()
        else:
            with engine.begin() as connection:
                yield connection
    finally:
        engine.dispose()


@asynccontextmanager
async def async_transaction(kind: str, url: str) -> AsyncIterator[Any]:
    if kind == "psycopg":
        async with (
            await psycopg.AsyncConnection.connect(url, autocommit=True) as raw,
            raw.transaction(),
        ):
            yield raw
        return
    if kind == "asyncpg":
        bare = await asyncpg.connect(url)
        try:
            async with bare.transaction():
                yield bare
        finally:
            await bare.close()
        return
    if kind == "asyncpg pool":
        async with (
            asyncpg.create_pool(url, min_size=1, max_size=1) as pool,
            pool.acquire() as lent,
            lent.transaction(),
        ):
            yield lent
        return
    engine = alchemy_asyncio.create_async_engine(alchemy(url, "asyncpg"))
    try:
        if kind == "session":
            async with alchemy_asyncio.AsyncSession(engine) as session, session.begin():
                yield session
        elif kind == "scoped_session":
            scoped = alchemy_asyncio.async_scoped_session(
                alchemy_asyncio.async_sessionmaker(engine), scopefunc=asyncio.current_task
            )
            async with scoped.begin():
                yield scoped
            await scoped.remove()
        else:
            async with engine.begin() as connection:
                yield connection
    finally:
        await engine.dispose()


class Undo(Exception):
    """Rolls a transaction back."""


@pytest.mark.parametrize("kind", SYNC)
def test_a_sync_transaction_publishes_when_it_commits(
    publisher: Publisher, outbox: Outbox, database_url: str, kind: str
) -> None:
    with suppress(Undo), sync_transaction(kind, database_url) as tx:
        assert publisher.publish(tx, user_created(), user_created()) == 2
        assert outbox.count() == 0
        raise Undo
    assert outbox.count() == 0
    event = user_created(username="이")
    with sync_transaction(kind, database_url) as tx:
        assert publisher.publish(tx, event, user_created()) == 2
    assert next(row["id"] for row in outbox.rows()) == event.event_id
    assert bytes(outbox.rows()[0]["payload"]) == event.serialize()


@pytest.mark.parametrize("kind", ASYNC)
async def test_an_async_transaction_publishes_when_it_commits(
    publisher: Publisher, outbox: Outbox, database_url: str, kind: str
) -> None:
    with suppress(Undo):
        async with async_transaction(kind, database_url) as tx:
            assert await publisher.publish(tx, user_created(), user_created()) == 2
            assert outbox.count() == 0
            raise Undo
    assert outbox.count() == 0
    event = user_created(username="이")
    async with async_transaction(kind, database_url) as tx:
        assert await publisher.publish(tx, event, user_created(), serialize=True) == 2
        assert await publisher.publish(tx) == 0
    assert next(row["id"] for row in outbox.rows()) == event.event_id
    assert bytes(outbox.rows()[0]["payload"]) == event.serialize()


def test_events_leave_in_the_order_in_which_they_were_given(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    names = [f"{number}" for number in range(BATCH * 2 + 7)]
    with psycopg.connect(database_url) as tx:
        stored = publisher.publish(tx, *(user_created(username=name) for name in names))
    assert stored == len(names)
    found = [UserCreated.model_validate_json(bytes(row["payload"])) for row in outbox.rows()]
    assert [event.username for event in found] == names


def test_what_a_savepoint_takes_back_is_not_published(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    kept, lost = user_created(), user_created()
    with psycopg.connect(database_url) as tx:
        publisher.publish(tx, kept)
        with suppress(Undo), tx.transaction():
            publisher.publish(tx, lost)
            raise Undo
    assert [row["id"] for row in outbox.rows()] == [kept.event_id]


def test_an_event_that_is_published_again_is_stored_once(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    event = user_created()
    with psycopg.connect(database_url) as tx:
        assert publisher.publish(tx, event, event) == 1
        assert publisher.publish(tx, event) == 0
        tx.commit()
        assert publisher.publish(tx, event, user_created()) == 1
    assert outbox.count() == 2


def test_a_session_is_flushed_first_and_its_own_errors_stay_its_own(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    class Base(orm.DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "shop_user"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str] = orm.mapped_column(unique=True)

    engine = sqlalchemy.create_engine(alchemy(database_url))
    Base.metadata.create_all(engine)
    with orm.Session(engine) as session, session.begin():
        user = User(name="kim")
        session.add(user)
        publisher.publish(session, user_created())
        assert user.id is not None
    with orm.Session(engine) as session:
        session.add(User(name="kim"))
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            publisher.publish(session, user_created())
    engine.dispose()
    assert outbox.count() == 1


def test_serialised_keys_wait_for_each_other(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    first, second = user_created(username="first"), user_created(username="second")

    def publish_second() -> None:
        with psycopg.connect(database_url) as tx:
            publisher.publish(tx, second, serialize=True)

    with psycopg.connect(database_url) as tx, psycopg.connect(database_url) as watch:
        publisher.publish(tx, first, serialize=True)
        other = threading.Thread(target=publish_second)
        other.start()
        while not watch.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            watch.rollback()
        tx.commit()
        other.join()
    assert [row["id"] for row in outbox.rows()] == [first.event_id, second.event_id]


def test_with_serialize_the_order_of_a_key_is_that_of_the_commits(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    came: list[UUID] = []

    def produce(number: int) -> None:
        with psycopg.connect(database_url) as tx:
            for turn in range(12):
                # Takes its transaction id early, and the keys in another order than the others.
                tx.execute("SELECT pg_current_xact_id()")
                events = [RawEvent(topic="t", key=key, payload=b"") for key in "abc"]
                events = events[number % 3 :] + events[: number % 3]
                publisher.publish(tx, *events, serialize=True)
                if turn % 4 == 3:
                    tx.rollback()
                    continue
                came.extend(event.event_id for event in events)
                tx.commit()

    producers = [threading.Thread(target=produce, args=[number]) for number in range(4)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    rows = outbox.rows()
    assert len(rows) == 4 * 9 * 3
    assert [row["id"] for row in rows] == came


def test_keys_are_locked_in_one_order_for_everybody() -> None:
    keys = [f"key-{number}" for number in range(50)]
    events = [RawEvent(topic="t", key=key, payload=b"") for key in (*keys, *reversed(keys))]
    first = next(store(prepare(events, Encryption(KeyRing())), serialize=True))
    assert json.loads(first.batch) == sorted({lock_of(key) for key in keys})


def test_outside_a_transaction_nothing_is_published(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    with (
        psycopg.connect(database_url, autocommit=True) as connection,
        pytest.raises(PublishOutsideTransaction, match="no transaction"),
    ):
        publisher.publish(connection, user_created())
    engine = sqlalchemy.create_engine(alchemy(database_url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, pytest.raises(PublishOutsideTransaction):
        publisher.publish(connection, user_created())
    with orm.Session(engine) as session, pytest.raises(PublishOutsideTransaction):
        publisher.publish(session, user_created())
    engine.dispose()
    assert outbox.count() == 0


async def test_outside_an_async_transaction_nothing_is_published(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    bare = await asyncpg.connect(database_url)
    with pytest.raises(PublishOutsideTransaction):
        await publisher.publish(bare, user_created())
    transaction = bare.transaction()
    await transaction.start()
    await bare.close()
    with pytest.raises(MessageSaveFailed):
        await publisher.publish(bare, user_created())
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        with pytest.raises(PublishOutsideTransaction):
            await publisher.publish(connection, user_created())
    assert outbox.count() == 0


def test_what_is_closed_is_said_to_be(publisher: Publisher, database_url: str) -> None:
    connection = psycopg.connect(database_url)
    connection.close()
    with pytest.raises(MessageSaveFailed, match="closed"):
        publisher.publish(connection, user_created())
    engine = sqlalchemy.create_engine(alchemy(database_url))
    session = orm.Session(engine, close_resets_only=False)
    session.close()
    with pytest.raises(MessageSaveFailed, match="closed"):
        publisher.publish(session, user_created())
    alchemy_connection = engine.connect()
    alchemy_connection.close()
    with pytest.raises(MessageSaveFailed, match="closed"):
        publisher.publish(alchemy_connection, user_created())
    engine.dispose()


async def test_what_is_closed_or_not_begun_is_said_to_be_where_one_awaits(
    publisher: Publisher, database_url: str
) -> None:
    engine = alchemy_asyncio.create_async_engine(alchemy(database_url))
    with pytest.raises(PublishOutsideTransaction):
        await publisher.publish(engine.connect(), user_created())
    connection = await engine.connect()
    await connection.close()
    with pytest.raises(MessageSaveFailed, match="closed"):
        await publisher.publish(connection, user_created())
    session = alchemy_asyncio.AsyncSession(engine, close_resets_only=False)
    await session.close()
    with pytest.raises(MessageSaveFailed, match="closed"):
        await publisher.publish(session, user_created())
    await engine.dispose()
    raw = await psycopg.AsyncConnection.connect(database_url)
    await raw.close()
    with pytest.raises(MessageSaveFailed, match="closed"):
        await publisher.publish(raw, user_created())


@pytest.mark.parametrize("wrong", [None, object(), "postgresql://localhost", 7])
def test_what_is_no_connection_is_refused(publisher: Publisher, wrong: Any) -> None:
    with pytest.raises(NotAConnection, match="no connection") as raised:
        publisher.publish(wrong, user_created())
    assert isinstance(raised.value, OutboxError)
    assert isinstance(raised.value, TypeError)


def test_what_the_database_refuses_is_a_save_that_failed(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    with psycopg.connect(database_url) as tx:
        tx.execute("SET LOCAL default_transaction_read_only = on")
        tx.execute("SET TRANSACTION READ ONLY")
        with pytest.raises(MessageSaveFailed, match="read-only") as raised:
            publisher.publish(tx, user_created())
        assert raised.value.sqlstate == "25006"
        assert isinstance(raised.value.__cause__, psycopg.Error)
        with pytest.raises(MessageSaveFailed, match="aborted") as raised:
            publisher.publish(tx, user_created())
    engine = sqlalchemy.create_engine(alchemy(database_url))
    with orm.Session(engine) as session:
        session.execute(sqlalchemy.text("SET LOCAL search_path = pg_catalog"))
        with pytest.raises(MessageSaveFailed, match="allim migrate") as raised:
            publisher.publish(session, user_created())
        assert raised.value.sqlstate == "42P01"
        assert "username" not in str(raised.value)
    engine.dispose()
    with psycopg.connect(database_url, prepare_threshold=0) as tx:
        publisher.publish(tx, user_created())
        tx.pgconn.exec_(b"DEALLOCATE ALL")  # a pooler hands out another connection
        with pytest.raises(MessageSaveFailed, match="behind a pooler") as raised:
            publisher.publish(tx, user_created())
        assert raised.value.sqlstate == "26000"
    assert outbox.count() == 0


def test_a_row_factory_of_the_caller_is_no_hindrance(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    with psycopg.connect(database_url, row_factory=psycopg.rows.dict_row) as tx:
        assert publisher.publish(tx, user_created()) == 1
    assert outbox.count() == 1
