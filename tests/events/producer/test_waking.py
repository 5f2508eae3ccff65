"""Relays are woken after the commit, by whichever toolkit can say that there was one."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as alchemy_asyncio

import allim
from allim.base.errors import ConfigurationError
from allim.channels.channel import Channel
from allim.database.transactions import after_commit
from allim.database.wakes import CHANNEL
from allim.database.waking import ThreadedWaker, wake, waking
from allim.events.publishing import Publisher
from allim.hub.service import Hub
from tests.events.producer.conftest import user_created
from tests.events.producer.test_transactions import Undo, alchemy


@pytest.fixture
def listener(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield connection


def heard(listener: psycopg.Connection) -> list[str]:
    return [n.payload for n in listener.notifies(timeout=60, stop_after=1)]


@pytest.fixture
def engine(database_url: str) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(alchemy(database_url))
    yield engine
    engine.dispose()


def test_a_session_that_commits_wakes(
    publisher: Publisher, listener: psycopg.Connection, engine: sqlalchemy.Engine, database_url: str
) -> None:
    with waking(database_url), orm.Session(engine) as session, session.begin():
        publisher.publish(session, user_created())
    assert heard(listener) == ["events"]


async def test_a_session_that_commits_a_notification_wakes_its_channels(
    channels: Mapping[str, Channel], listener: psycopg.Connection, database_url: str
) -> None:
    engine = alchemy_asyncio.create_async_engine(alchemy(database_url))
    with waking(database_url):
        async with alchemy_asyncio.AsyncSession(engine) as session, session.begin():
            await Hub(channels).notify(
                session, source="s", type="T", title="t", deliveries=[{"channel": "LOG"}]
            )
        assert heard(listener) == ["LOG"]
    await engine.dispose()


async def test_an_async_session_that_commits_wakes(
    publisher: Publisher, listener: psycopg.Connection, database_url: str
) -> None:
    engine = alchemy_asyncio.create_async_engine(alchemy(database_url))
    with waking(database_url):
        async with alchemy_asyncio.AsyncSession(engine) as session, session.begin():
            await publisher.publish(session, user_created())
        assert heard(listener) == ["events"]
    await engine.dispose()


def test_only_the_outermost_commit_is_one(engine: sqlalchemy.Engine) -> None:
    told: list[set[str]] = []

    def tell(words: Collection[str]) -> None:
        told.append(set(words))

    with orm.Session(engine) as session:
        with suppress(Undo), session.begin():
            assert after_commit(session, tell, ["rolled back"])
            raise Undo
        assert told == []
        with session.begin():
            with session.begin_nested():
                after_commit(session, tell, ["a"])
            assert told == []
            after_commit(session, tell, ["b"])
        assert told == [{"rolled back", "a", "b"}]
        with session.begin():
            session.execute(sqlalchemy.text("SELECT 1"))
        assert told == [{"rolled back", "a", "b"}]
    with engine.begin() as connection:
        assert not after_commit(connection, tell, ["c"])


def test_after_a_bare_drivers_commit_one_says_so_oneself(
    listener: psycopg.Connection, database_url: str
) -> None:
    wake()  # Nobody to tell: nothing happens.
    with waking(database_url):
        allim.wake()
        assert heard(listener) == ["events"]
        allim.wake("EMAIL", "SLACK")
        assert heard(listener) == ["EMAIL,SLACK"]


def test_what_is_left_at_the_end_is_sent(listener: psycopg.Connection, database_url: str) -> None:
    waker = ThreadedWaker(database_url)
    waker.wake(["A"])
    waker.close()
    assert heard(listener) == ["A"]
    waker.wake(["B"])
    assert waker._thread is not None
    assert not waker._thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_wakes_too(listener: psycopg.Connection, database_url: str) -> None:
    waker = ThreadedWaker(database_url)
    waker.wake(["PARENT"])
    assert heard(listener) == ["PARENT"]
    child = os.fork()
    if child == 0:
        waker.wake(["CHILD"])
        waker.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert heard(listener) == ["CHILD"]
    waker.close()


def test_waking_says_what_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir("/")
    with pytest.raises(ConfigurationError, match="DATABASE_URL"), waking():
        pass
    with pytest.raises(ConfigurationError, match="postgresql"), waking("mysql://x"):
        pass
