"""Payloads are sealed anew with the current key."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.rows import DictRow

from allim.database.pool import Database
from allim.events import RawEvent
from allim.events.encryption import Encryption, KeyRing, Sealed
from allim.events.errors import DecryptionFailed, EncryptionKeyMissing
from allim.events.publishing import Publisher
from allim.events.rotation import BATCH, Rotation
from tests.events.producer.conftest import KEY, Outbox

NEW = bytes(reversed(KEY))
OLD_RING = KeyRing({"old": KEY})
RING = KeyRing({"new": NEW, "old": KEY})


def secrets(count: int) -> list[RawEvent]:
    return [
        RawEvent(topic="t", key=f"{n}", payload=b"secret %d" % n, encrypted=True)
        for n in range(count)
    ]


def publish(url: str, ring: KeyRing, *events: RawEvent) -> None:
    with psycopg.connect(url) as tx:
        Publisher(Encryption(ring)).publish(tx, *events)


def opened(row: DictRow, ring: KeyRing) -> bytes:
    sealed = Sealed(row["encryption_key"], bytes(row["payload"]))
    return ring.open(sealed, event_id=row["id"], topic="t")


async def test_what_waits_is_sealed_with_the_current_key(
    database: Database, database_url: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allim.events.rotation.SCAN", BATCH + 30)
    publish(database_url, OLD_RING, *secrets(BATCH * 2 + 50))
    publish(database_url, RING, RawEvent(topic="t", key="x", payload=b"plain"), *secrets(1))
    before = outbox.rows()

    done = await Rotation(database, RING).run()

    assert (done.sealed, done.left, done.unreadable) == (BATCH * 2 + 50, 0, ())
    rows = outbox.rows()
    assert [bytes(row["payload"]) for row in rows[-2:]] == [
        bytes(row["payload"]) for row in before[-2:]
    ]
    only_new = KeyRing({"new": NEW})
    assert [opened(row, only_new) for row in rows[: BATCH * 2]] == [
        b"secret %d" % n for n in range(BATCH * 2)
    ]
    assert [row["version"] for row in rows] == [row["version"] for row in before]
    assert (await Rotation(database, RING).run()).sealed == 0


async def test_what_has_left_is_sealed_only_when_asked_to(
    database: Database, database_url: str, outbox: Outbox
) -> None:
    publish(database_url, OLD_RING, *secrets(3))
    await database.fetch(
        "UPDATE outbox_messages SET status = 'SENT' WHERE message_key = '1' RETURNING 1"
    )
    assert (await Rotation(database, RING).run()).sealed == 2
    assert [row["encryption_key"] for row in outbox.rows()] == ["new", "old", "new"]
    assert (await Rotation(database, RING, finished=True).run()).sealed == 1


async def test_a_message_in_use_is_come_back_to(
    database: Database, database_url: str, outbox: Outbox
) -> None:
    publish(database_url, OLD_RING, *secrets(2))
    with psycopg.connect(database_url) as relay:
        relay.execute("SELECT FROM outbox_messages WHERE message_key = '0' FOR UPDATE")
        rotation = Rotation(database, RING)
        sealed, left = await rotation._walk()
        assert (sealed, left) == (1, [outbox.rows()[0]["id"]])
    assert (await rotation._seal(left)) == (1, [])
    assert {row["encryption_key"] for row in outbox.rows()} == {"new"}


async def test_a_key_that_is_not_here_stops_it_and_nothing_is_lost(
    database: Database, database_url: str, outbox: Outbox
) -> None:
    publish(database_url, OLD_RING, *secrets(3))
    before = outbox.rows()
    with pytest.raises(EncryptionKeyMissing, match="'old'"):
        await Rotation(database, KeyRing({"new": NEW})).run()
    with pytest.raises(EncryptionKeyMissing, match="another key 'old'"):
        await Rotation(database, KeyRing({"new": NEW, "old": NEW})).run()
    with pytest.raises(EncryptionKeyMissing, match="not set"):
        Rotation(database, KeyRing())
    assert outbox.rows() == before


async def test_what_does_not_decrypt_is_told_of_and_left_alone(
    database: Database, database_url: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(database_url, OLD_RING, *secrets(3))
    broken = outbox.rows()[1]["id"]
    await database.fetch(
        "UPDATE outbox_messages SET payload = payload || 'x' WHERE id = %(id)s RETURNING 1",
        {"id": broken},
    )
    done = await Rotation(database, RING).run()
    assert (done.sealed, done.left, done.unreadable) == (2, 0, (broken,))
    monkeypatch.setattr("allim.events.rotation.UNREADABLE", 0)
    with pytest.raises(DecryptionFailed, match="does not decrypt"):
        await Rotation(database, RING).run()
    assert [row["encryption_key"] for row in outbox.rows()] == ["new", "old", "new"]
