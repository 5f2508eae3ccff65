"""The inbox: an event is taken in once, however often it is delivered."""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from allim.base.ids import uuid7
from allim.events import Inbox
from allim.events.errors import (
    MessageProcessingFailed,
    MessageSaveFailed,
    PublishOutsideTransaction,
)
from tests.events.producer.test_transactions import (
    ASYNC,
    SYNC,
    async_transaction,
    sync_transaction,
)


@pytest.mark.parametrize("kind", SYNC)
def test_the_first_time_is_the_only_one(database_url: str, kind: str) -> None:
    event = uuid7()
    with sync_transaction(kind, database_url) as tx:
        assert Inbox("mailer").once(tx, event)
        assert not Inbox("mailer").once(tx, str(event))
    with sync_transaction(kind, database_url) as tx:
        assert not Inbox("mailer").once(tx, str(event).encode())
        assert Inbox("reporter").once(tx, event)


@pytest.mark.parametrize("kind", ASYNC)
async def test_the_same_when_awaited(database_url: str, kind: str) -> None:
    event = uuid7()
    async with async_transaction(kind, database_url) as tx:
        assert await Inbox("mailer").once(tx, event)
    async with async_transaction(kind, database_url) as tx:
        assert not await Inbox("mailer").once(tx, event)


def test_a_consumer_that_rolls_back_takes_it_in_again(database_url: str) -> None:
    event = uuid7()
    with psycopg.connect(database_url) as tx:
        assert Inbox("mailer").once(tx, event)
        tx.rollback()
        assert Inbox("mailer").once(tx, event)


def test_two_consumers_at_once_take_it_in_once(database_url: str) -> None:
    event, answers = uuid7(), []

    def consume() -> None:
        with psycopg.connect(database_url) as tx:
            answers.append(Inbox("mailer").once(tx, event))

    with psycopg.connect(database_url) as tx, psycopg.connect(database_url) as watch:
        assert Inbox("mailer").once(tx, event)
        other = threading.Thread(target=consume)
        other.start()
        while not watch.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            watch.rollback()
        tx.commit()
        other.join()
    assert answers == [False]


def test_an_isolation_that_cannot_wait_says_what_to_do(database_url: str) -> None:
    event = uuid7()
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as two:
        two.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        two.execute("SELECT 1")
        assert Inbox("mailer").once(one, event)
        one.commit()
        with pytest.raises(MessageSaveFailed) as raised:
            Inbox("mailer").once(two, event)
        assert raised.value.sqlstate == "40001"
        two.rollback()
        assert not Inbox("mailer").once(two, event)


def test_old_entries_are_forgotten_and_young_ones_kept(database_url: str) -> None:
    old, young, others = uuid4(), uuid4(), uuid4()
    with psycopg.connect(database_url) as tx:
        for event in (old, young):
            Inbox("mailer").once(tx, event)
        Inbox("reporter").once(tx, others)
        tx.execute(
            "UPDATE inbox SET created_at = now() - interval '8 days' WHERE event_id = ANY (%s)",
            [[old, others]],
        )
        assert Inbox("mailer").forget(tx, timedelta(days=7)) == 1
        assert [Inbox("mailer").once(tx, event) for event in (old, young)] == [True, False]
        assert not Inbox("reporter").once(tx, others)


def test_what_is_no_event_id_or_transaction_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url) as tx:
        wrong: Any
        for wrong in ("", "no", b"\xff", None):
            with pytest.raises(MessageProcessingFailed, match="no event id"):
                Inbox("mailer").once(tx, wrong)
    with (
        psycopg.connect(database_url, autocommit=True) as connection,
        pytest.raises(PublishOutsideTransaction),
    ):
        Inbox("mailer").once(connection, uuid7())
    for name in ("", "x" * 201, "a\nb"):
        with pytest.raises(ValueError, match="printable"):
            Inbox(name)


def test_a_feed_full_of_duplicates_has_its_effect_once(database_url: str) -> None:
    events = [uuid7() for _ in range(40)]
    feed = [*events, *events, *events[:20]]
    random.Random(7).shuffle(feed)
    with psycopg.connect(database_url) as tx:
        tx.execute("CREATE TABLE effect (event_id uuid)")
        tx.commit()
        for at, event in enumerate(feed):
            if Inbox("mailer").once(tx, event):
                tx.execute("INSERT INTO effect VALUES (%s)", [event])
            # Every third time the consumer dies before its commit, and the broker repeats.
            (tx.rollback if at % 3 == 0 else tx.commit)()
        for event in events:
            if Inbox("mailer").once(tx, event):
                tx.execute("INSERT INTO effect VALUES (%s)", [event])
            tx.commit()
        found = tx.execute("SELECT event_id FROM effect").fetchall()
    assert sorted(row[0] for row in found) == sorted(events)
