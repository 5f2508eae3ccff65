"""The pages of events: listings, blocked keys, one event, replay and discard."""

from __future__ import annotations

import re
from uuid import uuid4

from allim.console.payloads import SHOWN, payload_of
from allim.database.pool import Database
from allim.events.reading import EventReader
from tests.console.conftest import READ, Visitor, on_record
from tests.console.standing import add_blocked_key, add_events, add_hour
from tests.console.test_keys import XSS


async def test_events_are_found_by_topic_key_and_status(
    visitor: Visitor, database: Database
) -> None:
    await add_blocked_key(database, key="A-1", error="broker says no")
    await add_events(database, 3, topic="mails", key=None)

    everything = await visitor.get("/events")
    assert "Blocked keys" in everything.words
    assert "broker says no" in everything.words
    assert "nobody" in everything.words, "slots that no relay holds"

    def rows(text: str) -> int:
        listing = text[text.index("<search>") : text.index('id="slots"')]
        return len(re.findall(r'href="/console/events/[0-9a-f-]{36}"', listing))

    assert rows(everything.text) == 6
    await add_hour(database)
    assert re.search(r"orders [\d,]{4,} 12 0 ", (await visitor.get("/events")).words)
    assert rows((await visitor.get("/events?topic=mails")).text) == 3
    assert rows((await visitor.get("/events?topic=orders&key=A-1")).text) == 3
    assert rows((await visitor.get("/events?status=DEAD")).text) == 1
    assert rows((await visitor.get("/events?status=bogus")).text) == 6
    assert "No event fits." in (await visitor.get("/events?topic=none")).words
    for cursor in ("cursor", "blocked"):
        assert (await visitor.get(f"/events?{cursor}=none-of-ours")).status == 400


async def test_many_are_shown_in_parts(visitor: Visitor, database: Database) -> None:
    await add_events(database, 120, key=None)
    for n in range(25):
        await add_blocked_key(database, key=f"K-{n:02}")

    page, seen = await visitor.get("/events"), set[str]()
    assert "K-19" in page.words
    [more] = re.findall(r'href="/console(/events\?blocked=[^"]*)"', page.text)
    assert "K-24" in (await visitor.get(more.replace("&amp;", "&"))).words
    while True:
        seen |= set(re.findall(r"/console/events/([0-9a-f-]{36})\"><time", page.text))
        following = re.findall(r'href="/console(/events\?cursor=[^"]*)"', page.text)
        if not following:
            break
        page = await visitor.get(following[-1].replace("&amp;", "&"))
    assert len(seen) == 120 + 75


async def test_a_dead_event_is_replayed_and_another_discarded(
    visitor: Visitor, database: Database
) -> None:
    head = await add_blocked_key(database)
    other = await add_blocked_key(database, key="B-2")

    await visitor.get("/events")
    shown = await visitor.post(f"/events/{head}/replay")
    assert "published again" in shown.words
    assert "is published again" not in (await visitor.get(f"/events/{head}")).words
    again = await visitor.post(f"/events/{head}/replay")
    assert "the event is waiting" in again.words

    assert (await visitor.post(f"/events/{other}/discard")).status == 422
    assert (await visitor.post(f"/events/{other}/discard", reason="x" * 501)).status == 422
    shown = await visitor.post(f"/events/{other}/discard", reason="not ours", back="list")
    assert "is discarded" in shown.words
    assert "Blocked keys" in shown.words

    states: dict[str, str] = dict(
        await database.fetch("SELECT id::text, status FROM outbox_messages")
    )
    assert (states[head], states[other]) == ("PENDING", "DISCARDED")
    entries = await on_record(database)
    assert [(e.action, e.subject, e.outcome.value, e.detail.get("reason")) for e in entries] == [
        ("event.discard", f"event {other}", "done", "not ours"),
        ("event.replay", f"event {head}", "refused", None),
        ("event.replay", f"event {head}", "done", None),
    ]


async def test_one_event_shows_its_headers_and_what_can_be_read(
    visitor: Visitor, database: Database
) -> None:
    plain = await add_events(database, 1, payload='{"name": "홍길동"}', headers='{"h": "v-1"}')
    page = await visitor.get(f"/events/{plain}")
    assert "홍길동" in page.words
    assert "v-1" in page.words

    hostile = await add_events(database, 1, payload=XSS, key=XSS)
    assert "<img" not in (await visitor.get(f"/events/{hostile}")).text

    async def shown(change: str) -> str:
        await database.fetch(
            f"UPDATE outbox_messages SET {change} WHERE id = %(id)s RETURNING id", {"id": plain}
        )
        return (await visitor.get(f"/events/{plain}")).words

    assert "Not text, and not shown." in await shown("payload = '\\x00ff', content_type = NULL")
    assert "Only the beginning is shown." in await shown(
        f"payload = convert_to(repeat('글', {SHOWN + 1}), 'UTF8'), content_type = 'text/plain'"
    )
    secret = await shown(
        "payload = convert_to('{\"secret\": 1}', 'UTF8'), encryption_key = 'k1',"
        " content_type = 'application/json'"
    )
    assert "encrypted, and not shown" in secret
    assert "secret" not in secret
    event = await EventReader(database).event(
        (await database.fetch("SELECT id FROM outbox_messages WHERE encryption_key IS NOT NULL"))[
            0
        ][0]
    )
    assert payload_of(event).text is None
    assert (await visitor.get(f"/events/{uuid4()}")).status == 404
    assert (await visitor.get("/events/none")).status == 404


async def test_who_may_only_read_changes_nothing(guarded: Visitor, database: Database) -> None:
    head = await add_blocked_key(database)
    await guarded.log_in(READ)
    assert "Replay" not in (await guarded.get("/events")).words

    for what in ("replay", "discard"):
        assert (await guarded.post(f"/events/{head}/{what}", reason="x")).status == 403
    assert await on_record(database) == []
