"""The page of channels: how they stand, a test message, disabled targets."""

from __future__ import annotations

import re
from typing import Any

from allim.database.pool import Database
from allim.hub.audit import AuditOutcome
from tests.console.conftest import OPERATE, READ, Open, Visitor, on_record
from tests.console.standing import add_hour
from tests.hub.conftest import count


def nonce_of(text: str) -> str:
    """The number that lets a form be sent once."""
    return str(re.findall(r'name="nonce" value="(\w+)"', text)[0])


async def test_channels_say_how_they_are_set_up_and_how_they_fare(
    visitor: Visitor, database: Database
) -> None:
    await add_hour(database)

    page = await visitor.get("/channels")

    cards = dict(re.findall(r'<article id="(\w+)">(.*?)</article>', page.text, re.DOTALL))
    assert set(cards) >= {"EMAIL", "SLACK", "SMS", "WEBHOOK", "LOG"}
    assert "badge mock" in cards["EMAIL"]
    assert "SMTP_URL is not set" in cards["EMAIL"]
    assert "badge not_configured" in cards["SMS"]
    assert "breaker open" in cards["SLACK"]
    assert "hooks.slack.com #3f2a" in cards["SLACK"]
    assert "1 a second, burst 3" in cards["SLACK"]
    assert re.search(r"\d,\d{3} attempts · \d\.\d % failed", cards["SLACK"])
    assert "T000" not in page.text, "no secret"


async def test_a_test_message_is_a_notification_like_any_other(
    guarded: Visitor, database: Database
) -> None:
    await guarded.log_in(OPERATE)
    nonce = nonce_of((await guarded.get("/channels")).text)
    fields = {"recipient": "kim@example.com", "message": "시험", "nonce": nonce}

    answers = [await guarded.post("/channels/EMAIL/test", follow=False, **fields) for _ in range(2)]

    [row] = await database.fetch(
        "SELECT n.id::text, n.source, n.type, n.message, d.channel, d.recipient, d.status"
        "  FROM notification n JOIN delivery d ON d.notification_id = n.id"
    )
    assert row[1:] == ("console", "TEST", "시험", "EMAIL", "kim@example.com", "PENDING")
    assert {a.headers["Location"] for a in answers} == {f"/console/channels?sent={row[0]}"}, (
        "pressed twice, sent once"
    )
    shown = await guarded.get(f"/channels?sent={row[0]}")
    assert f'href="/console/notifications/{row[0]}"' in shown.text
    entry = (await on_record(database))[-1]
    assert (entry.actor, entry.action, entry.subject, entry.outcome) == (
        "ops",
        "channel.test",
        "channel EMAIL",
        AuditOutcome.DONE,
    )
    assert "kim@" not in str(entry)


async def test_what_a_channel_cannot_send_is_refused_with_the_reason(
    visitor: Visitor, database: Database
) -> None:
    nonce = nonce_of((await visitor.get("/channels")).text)
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("EMAIL", {"recipient": "nobody"}, "has no @"),
        ("EMAIL", {}, "an e-mail needs an address"),
        ("SMS", {"recipient": "12"}, "recipient"),
        ("WEBHOOK", {"recipient": "http://127.0.0.1:1/x"}, "recipient"),
    ]
    for name, fields, says in wrong:
        shown = await visitor.post(f"/channels/{name}/test", message="x", nonce=nonce, **fields)
        assert (shown.status, says in shown.words) == (422, True), name
    assert await count(database, "notification") == 0
    assert (await visitor.post("/channels/PIGEON/test", message="x", nonce=nonce)).status == 404


async def test_a_disabled_target_is_enabled_on_record(visitor: Visitor, database: Database) -> None:
    [(number,)] = await database.fetch(
        "INSERT INTO endpoint (channel, url, disabled_at, disabled_reason) VALUES"
        " ('WEBHOOK', 'https:' || '//shop.example/x', now(), 'http_410') RETURNING id"
    )
    page = await visitor.get("/channels")
    assert "http_410" in page.words

    shown = await visitor.post(f"/channels/endpoints/{number}/enable")

    assert "called again" in shown.words
    assert await database.fetch("SELECT FROM endpoint WHERE disabled_at IS NOT NULL") == []
    assert "there is no endpoint 99" in (await visitor.post("/channels/endpoints/99/enable")).words
    entries = await on_record(database)
    assert [(e.subject, e.outcome.value) for e in entries] == [
        ("endpoint 99", "refused"),
        (f"endpoint {number}", "done"),
    ]


async def test_who_may_only_read_sends_nothing(open_console: Open, database: Database) -> None:
    visitor = await open_console(ALLIM_API_KEYS=f"reader:{READ}:read")
    await visitor.log_in(READ)
    page = await visitor.get("/channels")
    assert "nonce" not in page.text

    for path in ("/channels/LOG/test", "/channels/endpoints/1/enable"):
        assert (await visitor.post(path, message="x", nonce="1")).status == 403
    assert await count(database, "notification") == 0
