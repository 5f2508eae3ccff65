"""`allim events …` and `allim keys rotate`, as an operator types them."""

from __future__ import annotations

import base64
from pathlib import Path
from uuid import uuid4

import psycopg

from allim.events import RawEvent
from allim.events.encryption import Encryption, KeyRing
from allim.events.publishing import Publisher
from tests.events.producer.conftest import KEY, Outbox
from tests.programs import Ended, allim


def publish(url: str, *events: RawEvent, ring: KeyRing | None = None) -> None:
    with psycopg.connect(url) as tx:
        Publisher(Encryption(ring or KeyRing())).publish(tx, *events)


def update(url: str, statement: str, *events: RawEvent) -> None:
    with psycopg.connect(url) as tx:
        tx.execute(
            f"UPDATE outbox_messages SET {statement} WHERE id = ANY (%s)".encode(),
            [[event.event_id for event in events]],
        )


async def test_events_are_listed_shown_replayed_and_discarded(
    database_url: str, outbox: Outbox, tmp_path: Path
) -> None:
    async def events(*arguments: str) -> Ended:
        return await allim("events", *arguments, cwd=tmp_path, DATABASE_URL=database_url)

    sent, dead, stuck, behind = (
        RawEvent(topic="orders", key=key, payload=b'{"n":1}', content_type="application/json")
        for key in ("a", "a", "b", "b")
    )
    publish(database_url, sent, dead, stuck, behind)
    update(database_url, "status = 'SENT'", sent)
    update(database_url, "status = 'DEAD', error_message = E'too\\nlarge'", dead)
    update(database_url, "parked = true", stuck, behind)
    update(database_url, "status = 'FAILED', next_retry_at = '2099-01-01T00:00Z'", stuck)

    listed = await events("list", "--topic", "orders")
    assert [line.split()[0] for line in listed.out.splitlines()] == [
        str(event.event_id) for event in (behind, stuck, dead, sent)
    ]
    assert "DEAD       orders  a  too large" in listed.out
    assert (await events("list", "--status", "SENT", "--key", "b")).err == "no such events\n"
    shown = await events("show", str(dead.event_id))
    assert '"n": 1' in shown.out
    missing = await events("show", str(uuid4()))
    assert (missing.code, "there is no event" in missing.err) == (2, True)

    blocked = await events("blocked")
    said = f"orders  b  FAILED {stuck.event_id}  1 behind it  retry 2099-01-01T09:00:00+09:00"
    assert blocked.out.startswith(said), "times are Korean, as those of every command"
    gone = await events("discard", str(stuck.event_id))
    assert (gone.code, gone.out) == (0, "discarded 1\n")
    again = await events("discard", str(stuck.event_id))
    assert (again.code, again.out) == (2, "discarded 0\n")

    assert (await events("replay", "--topic", "orders", "--dry-run")).out == "1 would be replayed\n"
    assert (await events("replay", "--error", "no_such", "--dry-run")).out.startswith("0 ")
    assert (await events("replay", "--error", "too large")).out == "1 will be published again\n"
    assert (await events("replay", str(sent.event_id))).out == "1 will be published again\n"
    again = await events("replay", str(sent.event_id))
    assert (again.code, again.out) == (2, "0 will be published again\n")
    for wrong in ((), (str(sent.event_id), "--key", "a"), ("--from", "then"),
                  ("--from", "2026-01-01")):  # fmt: skip
        assert (await events("replay", *wrong)).code == 2
    assert [row["status"] for row in outbox.rows()] == [
        "PENDING",
        "PENDING",
        "DISCARDED",
        "PENDING",
    ]


async def test_keys_are_rotated(database_url: str, outbox: Outbox, tmp_path: Path) -> None:
    secret = RawEvent(topic="t", key="a", payload=b"secret", encrypted=True)
    publish(database_url, secret, ring=KeyRing({"old": KEY}))

    async def rotate(keys: str) -> Ended:
        return await allim(
            "keys", "rotate", cwd=tmp_path, DATABASE_URL=database_url, EVENTS_ENCRYPTION_KEYS=keys
        )

    new, old = (base64.b64encode(key).decode() for key in (bytes(reversed(KEY)), KEY))
    without = await rotate(f"new:{new}")
    assert (without.code, "'old', which is not in EVENTS_ENCRYPTION_KEYS" in without.err) == (
        1,
        True,
    )
    assert outbox.rows()[0]["encryption_key"] == "old"
    wrong = await rotate(f"new:{new},old:{new}")
    assert (wrong.code, "another key 'old'" in wrong.err) == (1, True)
    done = await rotate(f"new:{new},old:{old}")
    assert (done.code, done.out) == (0, "sealed 1 anew\n")
    assert outbox.rows()[0]["encryption_key"] == "new"
