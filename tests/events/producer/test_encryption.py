"""Payloads that are encrypted at rest."""

from __future__ import annotations

import base64
from typing import ClassVar

import psycopg
import pytest

from allim.base.errors import ConfigurationError
from allim.base.ids import uuid7
from allim.base.settings import Environment
from allim.composition.settings import check
from allim.events import RawEvent
from allim.events.encryption import OVERHEAD_BYTES, Encryption, KeyRing, Sealed
from allim.events.errors import DecryptionFailed, EncryptionKeyMissing, OutboxSystemError
from allim.events.event import Event
from allim.events.message import PAYLOAD_LIMIT, prepare
from allim.events.publishing import Publisher
from tests.events.producer.conftest import KEY, Outbox, UserCreated, user_created

OTHER = bytes(32)
EVENT = uuid7()


def coded(key: bytes) -> str:
    return base64.b64encode(key).decode()


class Secret(UserCreated):
    encrypted: ClassVar[bool | None] = True


class Open(UserCreated):
    encrypted: ClassVar[bool | None] = False


def test_topics_and_classes_say_what_is_encrypted(outbox: Outbox, database_url: str) -> None:
    environment = Environment(
        {
            "EVENTS_ENCRYPTION_KEYS": f"new:{coded(KEY)}, old:{coded(OTHER)}",
            "EVENTS_ENCRYPTED_TOPICS": "user-*, payments",
        }
    )
    encryption = Encryption.of(environment)
    covered, decided, raw = user_created(), Open(user_id=EVENT, username="x"), b"\x00raw"
    events: list[Event] = [
        covered,
        decided,
        RawEvent(topic="payments", key=None, payload=raw),
        RawEvent(topic="payments-2", key=None, payload=raw),
        RawEvent(topic="other", key=None, payload=raw, encrypted=True),
    ]
    with psycopg.connect(database_url) as tx:
        Publisher(encryption).publish(tx, *events)
    rows = outbox.rows()
    assert [row["encryption_key"] for row in rows] == ["new", None, "new", None, "new"]
    stored = bytes(rows[0]["payload"])
    assert b"kim" not in stored
    assert len(stored) == len(covered.serialize()) + OVERHEAD_BYTES
    opened = encryption.keys.open(
        Sealed("new", stored), event_id=covered.event_id, topic="user-events"
    )
    assert opened == covered.serialize()


def test_a_full_payload_may_be_encrypted_too() -> None:
    event = RawEvent(topic="t", key=None, payload=bytes(PAYLOAD_LIMIT), encrypted=True)
    (message,) = prepare([event], Encryption(KeyRing({"k": KEY})))
    assert len(message.payload) == PAYLOAD_LIMIT + OVERHEAD_BYTES


def test_without_a_key_a_secret_is_not_published(
    publisher: Publisher, outbox: Outbox, database_url: str
) -> None:
    with psycopg.connect(database_url) as tx:
        with pytest.raises(EncryptionKeyMissing, match="EVENTS_ENCRYPTION_KEYS is not set"):
            publisher.publish(tx, user_created(), Secret(user_id=EVENT, username="x"))
        assert tx.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    assert outbox.count() == 0


def test_what_does_not_belong_together_does_not_decrypt() -> None:
    ring = KeyRing({"k": KEY})
    sealed = ring.seal(b"secret", event_id=EVENT, topic="t")
    assert ring.seal(b"secret", event_id=EVENT, topic="t").payload != sealed.payload
    assert ring.open(sealed, event_id=EVENT, topic="t") == b"secret"
    changed = bytearray(sealed.payload)
    changed[-1] ^= 1
    with pytest.raises(DecryptionFailed, match="does not decrypt"):
        ring.open(sealed, event_id=uuid7(), topic="t")
    with pytest.raises(DecryptionFailed):
        ring.open(sealed, event_id=EVENT, topic="u")
    with pytest.raises(DecryptionFailed):
        ring.open(Sealed("k", bytes(changed)), event_id=EVENT, topic="t")
    with pytest.raises(DecryptionFailed):
        ring.open(Sealed("k", b"short"), event_id=EVENT, topic="t")
    with pytest.raises(EncryptionKeyMissing, match="another key 'k' than the one of that name"):
        KeyRing({"k": OTHER}).open(sealed, event_id=EVENT, topic="t")
    with pytest.raises(EncryptionKeyMissing, match="'k', which is not in") as raised:
        KeyRing({"l": OTHER}).open(sealed, event_id=EVENT, topic="t")
    assert isinstance(raised.value, OutboxSystemError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "entry 1 must be name:base64"),
        (f"a:{coded(KEY)},:{coded(KEY)}", "entry 2"),
        (f"a b:{coded(KEY)}", "entry 1"),
        ("a:%%%", "a is not base64"),
        (f"a:{coded(KEY[:16])}", "a has 16 bytes, not 32"),
        (f"a:{coded(KEY)},a:{coded(OTHER)}", "a stands twice"),
    ],
)
def test_a_ring_that_cannot_be_is_refused_without_being_shown(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised:
        KeyRing.parse(text)
    assert coded(KEY) not in str(raised.value)


def test_wrong_keys_are_told_of_with_every_other_wrong_setting() -> None:
    with pytest.raises(ConfigurationError) as raised:
        check(Environment({"EVENTS_ENCRYPTION_KEYS": "a:b c", "ALLIM_PORT": "x"}))
    assert "ALLIM_PORT must be" in str(raised.value)
    assert "EVENTS_ENCRYPTION_KEYS the key a is not base64" in str(raised.value)


def test_topics_without_keys_are_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="EVENTS_ENCRYPTION_KEYS is not"):
        Encryption.of(Environment({"EVENTS_ENCRYPTED_TOPICS": "a"}))
