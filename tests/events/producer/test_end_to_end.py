"""From `publish` to what leaves, with real programs."""

from __future__ import annotations

import asyncio
import base64
import json

import psycopg

from allim.events.encryption import Encryption, KeyRing
from allim.events.publishing import Publisher
from tests.events.producer.conftest import KEY, Outbox, UserCreated, user_created
from tests.programs import PATIENCE_SECONDS, an_empty_directory, programs

TROUBLED = (
    "SELECT status, retry_count, error_message FROM outbox_messages WHERE error_message IS NOT NULL"
)


class Secret(UserCreated):
    encrypted = True


def keys(key: bytes) -> str:
    return f"k:{base64.b64encode(key).decode()}"


async def test_an_encrypted_event_waits_for_its_key_and_leaves_decrypted(
    database_url: str, outbox: Outbox
) -> None:
    event = Secret(user_id=user_created().user_id, username="kim")
    with psycopg.connect(database_url) as tx:
        Publisher(Encryption(KeyRing({"k": KEY}))).publish(tx, event)
    with an_empty_directory() as home:
        async with programs(home) as start:
            relay = await start(
                "relay",
                "events",
                until="relay ",
                DATABASE_URL=database_url,
                EVENTS_ENCRYPTION_KEYS=keys(bytes(32)),
            )
            with psycopg.connect(database_url, autocommit=True) as looking:
                # A wrong key spends nothing: the message waits, and says for what.
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not (waiting := looking.execute(TROUBLED).fetchall()):
                        await asyncio.sleep(0.02)
            assert await relay.terminate() == 0
            assert relay.out == []
            ((status, retries, words),) = waiting
            assert (status in ("PENDING", "FAILED"), retries) == (True, 0)
            assert "another key 'k'" in words
            with psycopg.connect(database_url) as tx:
                tx.execute("UPDATE outbox_messages SET next_retry_at = now()")
            relay = await start(
                "relay",
                "events",
                until="relay ",
                DATABASE_URL=database_url,
                EVENTS_ENCRYPTION_KEYS=keys(KEY),
            )
            await relay._until(lambda: bool(relay.out))
            assert await relay.terminate() == 0
    told = json.loads(relay.out[0])
    assert told["event"] == str(event.event_id)
    assert json.loads(told["payload"]) == {"user_id": str(event.user_id), "username": "kim"}
    assert outbox.rows()[0]["status"] == "SENT"
    assert b"kim" not in bytes(outbox.rows()[0]["payload"])
