"""Notifications and dead letters in a real browser: buttons, keyboard, live parts, payloads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import expect

from allim.database.pool import Database
from tests.console.browser.conftest import XSS, ConsolePage, OpenTab, Serve
from tests.console.dead import attempt, delivery, event, notification
from tests.requirements import needs_korean_font

pytestmark = pytest.mark.asyncio(loop_scope="session")

PHONE = "01012345678"
_POLL = "void htmx.ajax('GET', location.pathname, {source: '#whole', target: '#whole'})"
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}},
    "ko": {"locale": "ko-KR"},
}


async def a_story(database: Database) -> str:
    """An Alimtalk that died, whose SMS died too, and a sheet that waits for its retry."""
    began = datetime.now(UTC) - timedelta(minutes=20)

    def at(seconds: float) -> datetime:
        return began + timedelta(seconds=seconds)

    one = await notification(
        database,
        source="payment-service",
        type="PAYMENT_FAILED",
        title="결제 실패",
        message="카드 승인이 거절되었습니다. 다른 카드로 다시 결제해 주세요.",
        data={"order_id": "A-1024"},
        created_at=began,
    )
    first = await delivery(
        database,
        one,
        channel="ALIMTALK",
        recipient=PHONE,
        template_code="PAY_FAIL",
        attempts=1,
        error_code="solapi_3104",
        last_error="Not a KakaoTalk user",
        created_at=began,
        provider_id="G4V2026112115",
        provider_message_id="M4V1",
        receipt_status="FAILED",
        receipt_at=at(9),
        fallback_steps=[{"channel": "SMS"}],
        updated_at=at(9),
    )
    await attempt(
        database,
        first,
        1,
        outcome="ACCEPTED",
        started_at=at(1),
        finished_at=at(1.32),
        http_status=200,
        provider_id="G4V2026112115",
        response='{"groupId":"G4V2026112115"}',
    )
    second = await delivery(
        database,
        one,
        channel="SMS",
        recipient=PHONE,
        parent_id=first,
        step="fallback",
        attempts=3,
        retry_count=3,
        error_code="solapi_3054",
        created_at=at(9),
        last_error="3054 number not in service",
        updated_at=at(400),
    )
    for number, (start, took) in enumerate(((10, 0.4), (75, 5.0), (399, 0.21)), 1):
        last = number == 3
        await attempt(
            database,
            second,
            number,
            started_at=at(start),
            finished_at=at(start + took),
            outcome="REFUSED" if last else "RETRY",
            http_status=200 if last else 503,
            error_code="solapi_3054" if last else "http_503",
            error="3054 number not in service" if last else "service unavailable",
            response='{"statusCode":"3054"}' if last else "<h1>503</h1>",
        )
    await database.fetch(
        "UPDATE delivery SET superseded_by = %(by)s WHERE id = %(id)s RETURNING 1",
        {"by": second, "id": first},
    )
    sheet = await delivery(
        database,
        one,
        channel="SHEET",
        recipient=None,
        row_key="A-1024",
        status="FAILED",
        attempts=1,
        retry_count=1,
        error_code="timeout",
        last_error="no answer within 20 s",
        next_retry_at=datetime.now(UTC) + timedelta(hours=1),
        created_at=began,
        then_steps=[{"channel": "KAKAO", "recipient": "ops"}],
    )
    await attempt(
        database,
        sheet,
        1,
        outcome="UNKNOWN",
        started_at=at(2),
        finished_at=at(22),
        error_code="timeout",
        error="no answer within 20 s",
    )
    mail = await delivery(
        database,
        one,
        channel="EMAIL",
        recipient="kim@example.com",
        status="SUCCESS",
        attempts=1,
        sent_at=at(2.1),
        created_at=began,
    )
    await attempt(
        database,
        mail,
        1,
        outcome="DELIVERED",
        started_at=at(2),
        finished_at=at(2.1),
        response="250 2.0.0 OK",
    )
    return str(one)


async def some_of_everything(database: Database) -> None:
    """A listing that looks like a day's."""
    for number, status in enumerate(
        ("SUCCESS", "PENDING", "ACCEPTED", "DEAD", "HELD", "SKIPPED", "CANCELED", "SUCCESS")
    ):
        one = await notification(
            database,
            source="booking",
            type="REMINDER",
            title=f"예약 안내 {number}",
            message="내일 오후 3시 예약이 있습니다.",
        )
        await delivery(
            database,
            one,
            status=status,
            recipient=f"0101234567{number}",
            error_code={"DEAD": "http_500", "HELD": "lease_expired"}.get(status),
            last_error={"DEAD": "upstream answered 500"}.get(status),
        )
    for number in range(4):
        one = await notification(database, source="shop", type="ORDER")
        await delivery(
            database, one, channel="SLACK", error_code="http_404", last_error="no_service"
        )
        await event(database, topic="orders", message_key=f"user-{number}")


async def test_pages_as_they_look(open_tab: OpenTab, serve: Serve, database: Database) -> None:
    needs_korean_font()
    url = await serve()
    story = await a_story(database)
    await some_of_everything(database)
    for look, options in LOOKS.items():
        tab = await open_tab(url, **options)
        for name, path in (
            ("notifications", "/notifications"),
            ("notification", f"/notifications/{story}"),
            ("dead_letters", "/dead-letters"),
            ("dead_group", "/dead-letters/group?status=DEAD&channel=SLACK&error_code=http_404"),
            ("dead_events", "/dead-letters/events?topic=orders"),
            ("replay", "/dead-letters/replay?status=DEAD&count=1"),
        ):
            page = await tab.open(path)
            await expect(page.locator("h1")).to_be_visible()
            width = (options.get("viewport") or {"width": 1280})["width"]
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
            await tab.screenshot(f"{name}.{look}")
        await tab.page.context.close()


async def test_a_notification_is_found_by_keyboard_and_mended_by_its_buttons(
    tab: ConsolePage, database: Database
) -> None:
    story = await a_story(database)
    page = await tab.open("/notifications")
    await page.keyboard.press("/")
    await page.keyboard.type("010-1234-5678")
    await page.keyboard.press("Enter")
    await expect(page.locator(".reading")).to_contain_text("010-1234-5678")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.locator("tbody a").first.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_contain_text("결제 실패")
    await expect(page.locator(".verdicts .bad")).to_have_count(2)

    await page.locator(".tree").get_by_role("button", name="Send again").first.click()
    await expect(page.locator(".flash")).to_contain_text("on its way again")
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await page.locator("#confirm button[value=yes]").click()
    await expect(page.locator(".flash")).to_contain_text("Cancelled.")
    await expect(page.locator(".timeline")).to_contain_text("notification.cancel")
    assert story in page.url


async def test_a_delivery_is_given_up_with_a_reason(tab: ConsolePage, database: Database) -> None:
    one = await notification(database)
    await delivery(database, one, error_code="http_500")
    page = await tab.open(f"/notifications/{one}")
    await page.locator(".ask summary").click()
    await page.locator(".ask input[name=reason]").fill("nobody wants it")
    await page.get_by_role("button", name="Discard for good").click()
    await expect(page.locator(".flash")).to_contain_text("discarded")
    await expect(page.locator(".verdicts")).to_contain_text("nobody wants it")
    await expect(page.locator(".tree button")).to_have_count(0)


async def test_rows_come_by_themselves_but_not_while_somebody_reads(
    tab: ConsolePage, database: Database
) -> None:
    one = await notification(database)
    dead = await delivery(database, one)
    page = await tab.open("/notifications")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await delivery(database, await notification(database))
    await expect(page.locator("tbody tr")).to_have_count(2, timeout=60_000)

    await tab.open(f"/notifications/{one}")
    await page.locator(".ask summary").click()
    await page.locator(".ask input[name=reason]").fill("half a reas")
    polls: list[str] = []
    page.on("request", lambda request: polls.append(request.url))
    await database.fetch(
        "UPDATE delivery SET status = 'HELD' WHERE id = %(id)s RETURNING 1", {"id": dead}
    )
    await page.evaluate(_POLL)
    await expect(page.locator(".ask input[name=reason]")).to_have_value("half a reas")
    assert polls == []
    await page.locator(".ask summary").click()
    await page.evaluate("document.activeElement.blur()")
    await page.evaluate(_POLL)
    await expect(page.locator(".tree .badge.held")).to_be_visible()


async def test_times_are_typed_in_the_viewers_zone(tab: ConsolePage, database: Database) -> None:
    await delivery(database, await notification(database))
    page = await tab.open("/notifications")
    await page.locator("select[name=period]").select_option("exact")
    await page.locator("input[data-moment=from]").fill("2026-01-02T09:00:00")
    await page.get_by_role("button", name="Search").click()
    await page.wait_for_url("**from=2026-01-02T00*")
    await expect(page.locator("input[data-moment=from]")).to_have_value("2026-01-02T09:00")
    await expect(page.locator("tbody tr")).to_have_count(1)


async def test_dead_letters_are_sent_again_by_a_filter(
    tab: ConsolePage, database: Database
) -> None:
    for _ in range(3):
        await delivery(database, await notification(database), error_code="http_500")
    page = await tab.open("/dead-letters")
    await page.get_by_role("link", name="Send again", exact=True).click()
    await expect(page.locator(".counted h2")).to_contain_text("3 deliveries")
    await page.locator("input[name=reason]").fill("mended")
    await tab.confirm("Send them again")
    await expect(page.locator("h1")).to_contain_text("Replay")
    await tab.screenshot("replay_job.light")
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator(".badge.paused")).to_be_visible()
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator(".badge.running")).to_be_visible()
    await tab.confirm("Cancel")
    await expect(page.locator(".badge.canceled")).to_be_visible()


async def test_a_group_is_discarded_and_events_are_published_again(
    tab: ConsolePage, database: Database
) -> None:
    await delivery(database, await notification(database), error_code="http_500")
    await event(database)
    page = await tab.open("/dead-letters/group?status=DEAD&channel=SMS&error_code=http_500")
    await page.locator(".ask summary").click()
    await page.locator(".ask input[name=reason]").fill("old")
    await tab.confirm("Discard for good")
    await expect(page.locator(".flash")).to_contain_text("One delivery is discarded.")
    await tab.open("/dead-letters/events?topic=orders")
    await page.locator(".ask summary").first.click()
    await page.locator(".ask input[name=reason]").first.fill("mended")
    await tab.confirm("Publish again")
    await expect(page.locator(".flash")).to_contain_text("on its way again")


async def test_payloads_stay_text(tab: ConsolePage, database: Database) -> None:
    one = await notification(
        database,
        title=XSS,
        message=XSS,
        source=XSS,
        type=XSS,
        data={XSS: XSS},
        idempotency_key=XSS,
    )
    number = await delivery(
        database,
        one,
        recipient=XSS,
        error_code=XSS,
        last_error=XSS,
        row_key=XSS,
        provider_id=XSS,
        provider_message_id=XSS,
        attempts=1,
        fallback_steps=[{"channel": XSS, "recipient": XSS}],
    )
    await attempt(
        database,
        number,
        1,
        outcome=XSS,
        error_code=XSS,
        error=XSS,
        response=XSS,
        provider_id=XSS,
        worker=XSS,
    )
    await event(database, topic=XSS, message_key=XSS, error_message=XSS)
    for path in (
        "/notifications",
        f"/notifications/{one}",
        "/dead-letters",
        f"/dead-letters/events?topic=orders&key={one}",
    ):
        page = await tab.open(path)
        for details in await page.locator("main details:not(.ask) > summary").all():
            await details.click()
        if "events" not in path:
            assert await tab.shows_as_text(XSS[:80]), path
    page = await tab.open("/notifications")
    for name in ("q", "source", "type"):
        await page.locator(f"input[name={name}]").fill(XSS)
    await page.locator(".find button").click()
    await expect(page.locator("input[name=q]")).to_have_value(XSS)
    assert not await page.evaluate("'pwned' in window")
