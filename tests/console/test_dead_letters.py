"""The pages of dead letters: groups of both boxes, replays by filter, discards."""

from __future__ import annotations

import re
from html import escape
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest

from allim.database.pool import Database
from allim.events.dead_letters import dead_event_groups
from allim.events.relaying.operations import OutboxOperator, Selection
from allim.hub.dead_letters import DeadLetters
from allim.hub.replaying import ReplayRunner
from allim.hub.replays import ReplayFilter
from allim.hub.status import DeliveryStatus
from allim.relay.wake import WakeSignal
from tests.console.conftest import OPERATE, READ, Visitor, on_record
from tests.console.dead import delivery, event, notification
from tests.console.test_notifications import XSS


async def dead(database: Database, count: int, **columns: object) -> list[int]:
    """Dead letters of one notification."""
    one = await notification(database)
    return [await delivery(database, one, **columns) for _ in range(count)]


async def statuses(database: Database) -> dict[str, int]:
    """How many deliveries are in each state."""
    rows = await database.fetch("SELECT status, count(*) FROM delivery GROUP BY status")
    return dict(rows)


async def test_dead_letters_are_grouped_by_state_channel_and_error(database: Database) -> None:
    await dead(database, 3, error_code="http_500", last_error="first")
    await dead(database, 1, error_code="http_500", last_error="the newest")
    await dead(database, 2, status="HELD", error_code="lease_expired")
    await dead(database, 1, channel="EMAIL")
    await dead(database, 2, error_code="http_500", superseded_by=99)
    await dead(database, 2, status="SUCCESS")

    groups = await DeadLetters(database).groups()

    assert [(g.status, g.channel, g.error_code, g.count, g.sample) for g in groups] == [
        ("DEAD", "SMS", "http_500", 4, "the newest"),
        ("HELD", "SMS", "lease_expired", 2, None),
        ("DEAD", "EMAIL", None, 1, None),
    ]
    assert all(group.oldest <= group.newest for group in groups)


async def test_a_group_is_read_in_parts(database: Database) -> None:
    ids = await dead(database, 7)
    letters = DeadLetters(database)
    seen, cursor = await letters.members(DeliveryStatus.DEAD, "SMS", None, limit=3)
    read = [member.id for member in seen]
    while cursor:
        seen, cursor = await letters.members(
            DeliveryStatus.DEAD, "SMS", None, limit=3, cursor=cursor
        )
        read += [member.id for member in seen]
    assert read == ids[::-1]


async def test_a_discard_takes_what_fits_in_batches_and_no_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allim.hub.dead_letters.BATCH", 2)
    monkeypatch.setattr("allim.hub.dead_letters.MOST", 4)
    await dead(database, 5, error_code="http_500")
    await dead(database, 2, error_code="http_404")
    await dead(database, 1)
    letters = DeadLetters(database)
    wanted = ReplayFilter(error_code="http_500")

    first = await letters.discard(wanted, "why", tenant=None, by="kim")
    second = await letters.discard(wanted, "why", tenant=None, by="kim")
    none = await letters.discard(ReplayFilter(), "why", tenant=7, by="kim")
    codeless = await letters.discard(ReplayFilter(), "why", tenant=None, by="kim", codeless=True)

    assert (first.count, first.more) == (4, True)
    assert (second.count, second.more) == (1, False)
    assert (none.count, codeless.count) == (0, 1)
    assert await statuses(database) == {"CANCELED": 6, "DEAD": 2}
    entries = await on_record(database)
    assert [e.detail["discarded"] for e in reversed(entries)] == [2, 2, 1, 1]
    assert all((e.actor, e.detail["reason"]) == ("kim", "why") for e in entries)


async def test_the_page_shows_both_boxes_and_leads_to_their_rows(
    visitor: Visitor, database: Database
) -> None:
    await dead(database, 2, error_code="http_500", last_error=XSS, recipient=XSS)
    await event(database, error_message=XSS, message_key=XSS)

    shown = await visitor.get("/dead-letters")
    group = await visitor.get("/dead-letters/group?status=DEAD&channel=SMS&error_code=http_500")
    events = await visitor.get("/dead-letters/events?topic=orders")

    assert "an error of the other side" in shown.words
    assert "orders" in shown.words
    assert group.text.count("#d") == 2
    assert "orders" in events.words
    for page in (shown, group, events):
        assert page.status == 200
        assert "<img" not in page.text
    part = await visitor.get("/dead-letters", headers={"HX-Request": "true", "HX-Target": "groups"})
    assert (part.status, "<html" in part.text) == (200, False)
    empty = await visitor.get("/dead-letters/group?channel=NONE")
    assert "This group is empty" in empty.words


async def test_a_replay_is_counted_begun_paused_and_ended(
    guarded: Visitor, database: Database
) -> None:
    await dead(database, 3, error_code="http_500")
    await dead(database, 1, error_code="http_404")
    await guarded.log_in(OPERATE)

    counted = await guarded.get("/dead-letters/replay?channel=SMS&error_code=http_500&count=1")
    assert "3 deliveries would be sent again" in counted.words
    assert await statuses(database) == {"DEAD": 4}
    filled: dict[str, Any] = {"status": "DEAD", "channel": "SMS", "error_code": "http_500"}
    unexplained = await guarded.post("/dead-letters/replay", **filled)
    assert (unexplained.status, "reason" in unexplained.words) == (422, True)

    begun = await guarded.post(
        "/dead-letters/replay", **filled, rate_per_second="2", reason="it is mended"
    )
    number = int(re.findall(r"Replay (\d+)", begun.words)[0])
    job = f"/dead-letters/replays/{number}"
    assert "it is mended" in begun.words
    assert "It is paused." in (await guarded.post(f"{job}/pause")).words
    assert "can be paused" in (await guarded.post(f"{job}/pause")).words
    assert "It goes on." in (await guarded.post(f"{job}/resume")).words
    runner = ReplayRunner(database, WakeSignal(), lambda lanes: None)
    assert await runner.step() is not None
    part = await guarded.get(job, headers={"HX-Request": "true", "HX-Target": "job"})
    assert 'value="2" max="3"' in part.text
    assert "It is cancelled." in (await guarded.post(f"{job}/cancel")).words

    assert await statuses(database) == {"DEAD": 2, "PENDING": 2}
    assert f"#{number}" in (await guarded.get("/dead-letters/replays")).words
    entries = await on_record(database)
    assert [(e.actor, e.action) for e in reversed(entries)] == [
        ("ops", f"replay.{action}") for action in ("create", "pause", "resume", "cancel")
    ]


async def test_a_group_is_discarded_with_a_reason_only(
    visitor: Visitor, database: Database
) -> None:
    await dead(database, 2, error_code="http_500")
    await dead(database, 1)
    await visitor.get("/dead-letters")
    of: dict[str, Any] = {"status": "DEAD", "channel": "SMS", "error_code": "http_500"}

    assert "is required" in (await visitor.post("/dead-letters/discard", **of)).words
    done = await visitor.post("/dead-letters/discard", **of, reason="too old")
    assert "2 deliveries are discarded." in done.words
    assert await statuses(database) == {"CANCELED": 2, "DEAD": 1}
    rest = await visitor.post(
        "/dead-letters/discard", status="DEAD", channel="SMS", codeless="1", reason="too old"
    )
    assert "One delivery is discarded." in rest.words


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_per_second": "fast"},
        {"rate_per_second": "-1"},
        {"tenant_id": "x"},
        {"from": "never"},
        {"status": "SUCCESS"},
        {"channel": "x y"},
    ],
)
async def test_what_is_wrong_with_a_replay_is_said(visitor: Visitor, wrong: dict[str, Any]) -> None:
    await visitor.get("/dead-letters/replay")
    counted = await visitor.get("/dead-letters/replay", params={"count": "1", **wrong})
    begun = await visitor.post("/dead-letters/replay", reason="r", **wrong)
    for answer in (counted, begun):
        assert (answer.status, 'role="alert"' in answer.text) == (422, True)
        for words in ("Value error", "Input should", "String should"):
            assert words not in answer.words


async def test_dead_events_are_published_again_or_given_up_by_topic_and_key(
    visitor: Visitor, database: Database
) -> None:
    again = await event(database, message_key="a")
    gone = await event(database, message_key="b")
    kept = await event(database, topic="users", message_key="a")
    await visitor.get("/dead-letters/events?topic=orders")

    refused = await visitor.post("/dead-letters/events/replay", topic="orders")
    assert "is required" in refused.words
    done = await visitor.post(
        "/dead-letters/events/replay", topic="orders", key="a", reason="mended"
    )
    assert "One event is on its way again." in done.words
    done = await visitor.post("/dead-letters/events/discard", topic="orders", reason="old")
    assert "One event is discarded." in done.words

    rows = await database.fetch("SELECT id, status FROM outbox_messages")
    assert dict(rows) == {again: "PENDING", gone: "DISCARDED", kept: "DEAD"}
    entries = await on_record(database)
    assert [(e.action, e.subject, e.detail["events"]) for e in reversed(entries)] == [
        ("events.replay", "topic orders", 1),
        ("events.discard", "topic orders", 1),
    ]


async def test_a_group_of_dead_events_is_published_again_and_no_other(
    visitor: Visitor, database: Database
) -> None:
    long = "조건  이\n\tbroken " * 40
    errors = ("too_large: 9 MiB", "too_large: 8 MiB", "too_large_key: k", "no colon & <b>", long)
    events = [await event(database, error_message=error) for error in errors]

    groups = await dead_event_groups(database)
    assert sorted(group.count for group in groups) == [1, 1, 1, 2]
    shown = await visitor.get("/dead-letters")
    for group in groups:
        found = await OutboxOperator(database).chosen(Selection(error=group.error))
        assert len(found) == group.count
        link = f"/dead-letters/events?{urlencode({'topic': 'orders', 'error': group.error})}"
        assert escape(link) in shown.text
        listed = await visitor.get(link)
        assert {str(e) for e in events if str(e) in listed.text} == {str(e) for e in found}

    await visitor.get("/dead-letters/events?error=too_large")
    done = await visitor.post("/dead-letters/events/replay", error="too_large", reason="mended")
    assert "2 events are on their way again." in done.words
    rows: dict[UUID, str] = dict(await database.fetch("SELECT id, status FROM outbox_messages"))
    assert [rows[e] for e in events] == ["PENDING", "PENDING", "DEAD", "DEAD", "DEAD"]
    [entry] = await on_record(database)
    assert entry.detail["error"] == "too_large"


async def test_a_reader_looks_and_touches_nothing(guarded: Visitor, database: Database) -> None:
    await dead(database, 1)
    await event(database)
    await guarded.log_in(READ)

    for path in (
        "/dead-letters",
        "/dead-letters/group?status=DEAD&channel=SMS",
        "/dead-letters/events",
    ):
        shown = await guarded.get(path)
        assert shown.status == 200
        assert 'method="post" action="/console/dead-letters' not in shown.text
    for path in ("/dead-letters/discard", "/dead-letters/replay", "/dead-letters/events/discard"):
        assert (await guarded.post(path, reason="x")).status == 403
    assert await statuses(database) == {"DEAD": 1}
