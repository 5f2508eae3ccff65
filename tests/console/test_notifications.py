"""The pages of notifications: found by whatever is typed, told in full, acted upon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from allim.base.errors import Conflict
from allim.console.possible import Possible
from allim.database.pool import Database
from allim.hub.operations import Operations
from allim.hub.reading import Reader
from tests.console.conftest import OPERATE, READ, Visitor, on_record
from tests.console.dead import attempt, delivery, notification

XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
PHONE = "01012345678"


async def test_one_field_finds_by_whatever_is_typed(visitor: Visitor, database: Database) -> None:
    one = await notification(database, title="needle", idempotency_key="key-7")
    number = await delivery(
        database, one, provider_id="G4V-1", provider_message_id="M4V-0001", row_key="row-1"
    )
    other = await notification(database, title="hay, 1024 bales")
    await delivery(
        database,
        other,
        recipient="kim@example.com",
        channel="EMAIL",
    )
    chat = await notification(database, title="chat")
    await delivery(database, chat, channel="TELEGRAM", recipient="7", provider_message_id="1024")

    for typed in (
        "010-1234-5678",
        "+82 10 1234 5678",
        "010 1234 5678",
        "needle",
        "NEEDLE",
        "key-7",
        "G4V-1",
        "M4V-0001",
        "row-1",
    ):
        shown = await visitor.get("/notifications", params={"q": typed})
        assert (str(one) in shown.text, str(other) in shown.text) == (True, False), typed
    mailed = await visitor.get("/notifications", params={"q": "kim@example.com"})
    assert (str(one) in mailed.text, str(other) in mailed.text) == (False, True)
    # Short numbers are rather words than Telegram's ids of messages.
    bales = await visitor.get("/notifications", params={"q": "1024"})
    assert (str(other) in bales.text, str(chat) in bales.text) == (True, False)
    for typed in (str(one), f"#{number}"):
        straight = await visitor.get("/notifications", params={"q": typed}, follow=False)
        assert straight.headers["Location"] == f"/console/notifications/{one}"
    for nothing in (XSS, str(uuid4()), "#99999999999999999999", "#999999", "%", "\x00"):
        shown = await visitor.get("/notifications", params={"q": nothing, "source": "none"})
        assert (shown.status, "Nothing fits" in shown.words) == (200, True), nothing


async def test_filters_narrow_and_what_is_wrong_is_said(
    visitor: Visitor, database: Database
) -> None:
    dead = await notification(database, source="a", tenant_id=5)
    await delivery(database, dead)
    waiting = await notification(database, source="b")
    await delivery(database, waiting, status="PENDING", channel="EMAIL")
    old = await notification(database, source="c", created_at=datetime.now(UTC) - timedelta(days=3))
    await delivery(database, old, status="SUCCESS")

    async def found(**query: str) -> set[str]:
        text = (await visitor.get("/notifications", params=query)).text
        return {
            name
            for name, one in (("dead", dead), ("waiting", waiting), ("old", old))
            if str(one) in text
        }

    assert await found() == {"dead", "waiting", "old"}
    assert await found(status="FAILED") == {"dead"}
    assert await found(status="PENDING") == {"waiting"}
    assert await found(status="COMPLETED") == {"old"}
    assert await found(channel="EMAIL") == {"waiting"}
    assert await found(source="b") == {"waiting"}
    assert await found(tenant="5") == {"dead"}
    assert await found(period="24h") == {"dead", "waiting"}
    until = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    assert await found(period="exact", to=until) == {"old"}
    for wrong in ({"tenant": "x"}, {"period": "exact", "from": "never"}):
        answer = await visitor.get("/notifications", params=wrong)
        assert (answer.status, 'role="alert"' in answer.text) == (422, True)


async def test_pages_follow_each_other_and_only_the_rows_are_live(
    visitor: Visitor, database: Database
) -> None:
    for number in range(60):
        await delivery(database, await notification(database, type=f"T{number}"))

    first = await visitor.get("/notifications")
    assert "data-live" in first.text
    cursor = first.text.partition("cursor=")[2].partition('"')[0]
    second = await visitor.get(f"/notifications?cursor={cursor}")
    assert second.text.count("<tr>") == 1 + 10
    assert "data-live" not in second.text
    rows = await visitor.get("/notifications", headers={"HX-Request": "true", "HX-Target": "rows"})
    assert "<tbody>" in rows.text
    assert "<form" not in rows.text


async def test_a_search_that_was_bounded_says_how_far_it_looked(
    visitor: Visitor, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allim.hub.stepping.FIRST", 60)
    monkeypatch.setattr("allim.hub.stepping.MOST", 60)
    for number in range(70):
        await notification(database, title="needle" if number == 0 else "hay")
    first = await visitor.get("/notifications?q=needle")
    shown, steps = first, 0
    while "needle</b>" not in shown.text and steps < 3:
        assert "The search was bounded" in shown.words
        cursor = shown.text.partition("cursor=")[2].partition('"')[0]
        shown = await visitor.get(f"/notifications?q=needle&cursor={cursor}")
        steps += 1
    assert "needle</b>" in shown.text


async def _story(database: Database) -> tuple[str, int, int]:
    one = await notification(database, scheduled_at=datetime.now(UTC), data={"order": 7})
    dead = await delivery(
        database,
        one,
        channel="ALIMTALK",
        attempts=3,
        retry_count=3,
        error_code="solapi_3104",
        last_error="said the carrier",
        fallback_steps=[{"channel": "SMS", "recipient": PHONE}],
    )
    for number in (1, 2):
        await attempt(database, dead, number, outcome="SNOOZED", error_code="circuit_open")
    await attempt(
        database,
        dead,
        3,
        outcome="REFUSED",
        http_status=502,
        error_code="solapi_3104",
        response=XSS,
        provider_id="G-1",
        finished_at=datetime.now(UTC) + timedelta(milliseconds=250),
        started_at=datetime.now(UTC),
    )
    child = await delivery(
        database,
        one,
        parent_id=dead,
        step="fallback",
        status="SUCCESS",
        attempts=1,
        receipt_status="DELIVERED",
        receipt_at=datetime.now(UTC),
        sent_at=datetime.now(UTC),
        then_steps=[{"channel": "SLACK"}],
    )
    await database.fetch(
        "UPDATE delivery SET superseded_by = %(by)s WHERE id = %(id)s RETURNING 1",
        {"by": child, "id": dead},
    )
    return str(one), dead, child


async def test_a_notification_tells_everything_and_why(
    visitor: Visitor, database: Database
) -> None:
    one, dead, child = await _story(database)

    shown = await visitor.get(f"/notifications/{one}")

    for said in (
        f"ALIMTALK to {PHONE} died at the first try: not a KakaoTalk user: said the carrier.",
        f"SMS to {PHONE} arrived: the provider confirmed it.",
        "Accepted from shop, as ORDER",
        "Scheduled for",
        "Put off 2 times",
        "Try 3, claimed by relay-1",
        "HTTP 502",
        f"Created as the fallback of #{dead}",
        "Receipt: DELIVERED",
        f"replaced by #{child}",
    ):
        assert said in shown.words, said
    assert "<img" not in shown.text
    assert "<script>alert" not in shown.text
    part = await visitor.get(
        f"/notifications/{one}", headers={"HX-Request": "true", "HX-Target": "whole"}
    )
    assert (part.status, "Timeline" in part.words, "<html" in part.text) == (200, True, False)
    korean = await visitor.get(f"/notifications/{one}", headers={"Accept-Language": "ko"})
    assert "카카오톡 미사용자" in korean.words
    assert "/retry" not in shown.text, "its fallback arrived: nothing is to be done"
    assert (await visitor.get(f"/notifications/{uuid4()}")).status == 404


async def test_buttons_do_what_they_say_and_are_on_record(
    guarded: Visitor, database: Database
) -> None:
    one = await notification(database)
    dead, held, waiting = [
        await delivery(database, one, status=status, recipient=status)
        for status in ("DEAD", "HELD", "PENDING")
    ]
    await guarded.log_in(OPERATE)
    shown = await guarded.get(f"/notifications/{one}")
    assert all(f"/{what}" in shown.text for what in ("cancel", "retry", "discard"))

    again = await guarded.post(f"/notifications/{one}/retry", delivery=str(dead))
    assert "on its way again" in again.words
    refused = await guarded.post(f"/notifications/{one}/retry", delivery=str(dead))
    assert "only what is" in refused.words
    given_up = await guarded.post(f"/notifications/{one}/discard", reason="asked by kim")
    assert "It is discarded." in given_up.words
    assert "asked by kim" in given_up.words
    canceled = await guarded.post(f"/notifications/{one}/cancel")
    assert "Cancelled." in canceled.words

    rows = await database.fetch("SELECT id, status FROM delivery ORDER BY id")
    assert rows == [(dead, "CANCELED"), (held, "CANCELED"), (waiting, "CANCELED")]
    entries = await on_record(database)
    assert [(e.actor, e.action, e.subject, e.outcome) for e in reversed(entries)] == [
        ("ops", "delivery.retry", f"delivery {dead}", "done"),
        ("ops", "delivery.retry", f"delivery {dead}", "refused"),
        ("ops", "delivery.discard", f"delivery {held}", "done"),
        ("ops", "notification.cancel", f"notification {one}", "done"),
    ]
    after = await guarded.get(f"/notifications/{one}")
    assert "ops delivery.discard" in after.words
    assert not any(f"/{what}" in after.text for what in (f"{one}/cancel", f"{one}/retry"))


async def test_all_of_a_notification_is_sent_again_but_nothing_of_another(
    visitor: Visitor, database: Database
) -> None:
    one, other = await notification(database), await notification(database)
    mine = [await delivery(database, one), await delivery(database, one, status="SKIPPED")]
    theirs = await delivery(database, other)
    await visitor.get(f"/notifications/{one}")

    foreign = await visitor.post(f"/notifications/{one}/retry", delivery=str(theirs))
    assert "not part of" in foreign.words
    done = await visitor.post(f"/notifications/{one}/retry")
    assert "2 deliveries are on their way again." in done.words
    rows = await database.fetch("SELECT id FROM delivery WHERE status = 'PENDING' ORDER BY id")
    assert [row[0] for row in rows] == mine
    nothing = await visitor.post(f"/notifications/{one}/retry")
    assert "nothing left" in nothing.words


async def test_a_reader_sees_no_buttons_and_may_not_press_any(
    guarded: Visitor, database: Database
) -> None:
    one = await notification(database)
    number = await delivery(database, one)
    await guarded.log_in(READ)

    assert "/retry" not in (await guarded.get(f"/notifications/{one}")).text
    assert (await guarded.post(f"/notifications/{one}/retry")).status == 403
    [(status,)] = await database.fetch(
        "SELECT status FROM delivery WHERE id = %(id)s", {"id": number}
    )
    assert status == "DEAD"


async def test_what_is_offered_is_what_the_service_does(database: Database) -> None:
    """Each state alone, and above a child in each state: buttons and service agree."""
    reader, operations = Reader(database), Operations(database)
    states = (
        "PENDING",
        "PROCESSING",
        "SUCCESS",
        "ACCEPTED",
        "FAILED",
        "DEAD",
        "SKIPPED",
        "HELD",
        "CANCELED",
        "EXPIRED",
    )
    for below in (None, "SUCCESS", "DEAD", "PENDING"):
        for state in states if below is None else ("DEAD", "HELD"):
            one = await notification(database)
            top = await delivery(database, one, status=state)
            if below is not None:
                child = await delivery(database, one, status=below, parent_id=top, step="fallback")
                await database.fetch(
                    "UPDATE delivery SET superseded_by = %(by)s WHERE id = %(id)s RETURNING 1",
                    {"by": child, "id": top},
                )
            possible = Possible.with_(await reader.notification(one))
            try:
                await operations.discard(top, "x") if top not in possible.retry else None
                discarded = top not in possible.retry
            except Conflict:
                discarded = False
            if top not in possible.retry:
                assert discarded == (top in possible.discard), (state, below)
                if not discarded:
                    with pytest.raises(Conflict):
                        await operations.retry(top)
            else:
                assert (top in possible.discard) == (
                    below is None and state in ("DEAD", "SKIPPED", "HELD")
                )
                await operations.retry(top)
