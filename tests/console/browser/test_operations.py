"""The overview, channels and events in a browser."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import expect

from allim.database.pool import Database
from allim.hub.audit import AuditLog
from allim.hub.rollups import Rollups
from allim.relay.tally import Broken
from tests.console.browser.conftest import XSS, ConsolePage, OpenTab, Serve
from tests.console.conftest import KEYS, READ
from tests.console.standing import add_blocked_key, add_deliveries, add_trouble
from tests.requirements import needs_korean_font

pytestmark = pytest.mark.asyncio(loop_scope="session")

PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}

DRAWN = """name => {
  const canvas = document.querySelector(`[data-chart=${name}] canvas`);
  if (!canvas || !canvas.width) return 0;
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let i = 0; i < pixels.length; i += 4)
    if (pixels[i + 3] > 200) colours.add([0, 1, 2].map((n) => pixels[i + n] >> 4).join());
  return colours.size;
}"""

INK = """name => document.querySelector(`[data-chart=${name}] canvas`).toDataURL()"""


async def test_the_overview_draws_its_charts_in_every_dress(
    open_tab: OpenTab, serve: Serve, database: Database
) -> None:
    needs_korean_font()
    await add_trouble(database)
    url = await serve()
    dresses: dict[str, dict[str, Any]] = {
        "overview": {"viewport": WIDE},
        "overview.dark": {"viewport": WIDE, "color_scheme": "dark"},
        "overview.phone": {"viewport": PHONE},
        "overview.ko": {"viewport": WIDE, "locale": "ko-KR"},
    }
    for name, options in dresses.items():
        tab = await open_tab(url, **options)
        page = await tab.open("/")
        await expect(page.locator("[data-state=drawn]")).to_have_count(3)
        for chart in ("deliveries", "errors", "events"):
            assert await page.evaluate(DRAWN, chart) >= 3, (name, chart)
        width = options["viewport"]["width"]
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, name
        await tab.screenshot(name)
    await page.get_by_role("link", name="1주").click()
    await expect(page.locator(".tabs [aria-current]")).to_have_text("1주")
    await expect(page.locator("[data-state=drawn]")).to_have_count(3)


async def test_the_overview_follows_what_happens_and_its_theme(
    tab: ConsolePage, database: Database
) -> None:
    page = await tab.open("/")
    await expect(page.locator(".fresh")).to_be_visible()
    await tab.screenshot("overview.fresh")
    await expect(page.locator("#relays .empty")).to_be_visible()

    await Rollups(database).beat("w-1", ["EMAIL"], slots=0, broken=[])
    await add_deliveries(database, "EMAIL", 7, age=700)

    await expect(page.locator(".found")).to_contain_text("EMAIL: the oldest has been due for 11m")
    await expect(page.locator("#relays code")).to_have_text("w-1")
    await expect(page.locator("[data-charts]")).to_have_count(0)

    await add_trouble(database)
    await tab.open("/")
    await expect(page.locator("[data-state=drawn]")).to_have_count(3)
    before = await page.evaluate(INK, "deliveries")
    await page.locator("[data-theme-toggle]").click()
    await expect(page.locator("[data-state=drawn]")).to_have_count(3)
    assert await page.evaluate(INK, "deliveries") != before


async def test_a_test_message_is_sent_from_its_channel(
    open_tab: OpenTab, serve: Serve, database: Database
) -> None:
    needs_korean_font()
    await add_trouble(database)
    url = await serve()
    tab = await open_tab(url, viewport=WIDE)
    page = await tab.open("/channels")
    await tab.screenshot("channels")
    email = page.locator("#EMAIL")
    await email.locator("summary").click()
    await email.get_by_label("E-mail address").fill("nobody")
    tab.expected.append("422")
    await email.get_by_role("button", name="Send", exact=True).click()

    await expect(email.locator(".problems")).to_contain_text("recipient")
    await expect(email.get_by_label("E-mail address")).to_have_value("nobody")
    await tab.screenshot("channels.problem")
    await email.get_by_label("E-mail address").fill("kim@example.com")
    await email.get_by_role("button", name="Send", exact=True).click()

    await expect(page.locator(".flash")).to_contain_text("on its way")
    [(identity,)] = await database.fetch("SELECT id::text FROM notification WHERE type = 'TEST'")
    follow = page.get_by_role("link", name="See what became")
    await expect(follow).to_have_attribute("href", f"/console/notifications/{identity}")


async def test_a_disabled_target_is_called_again(
    open_tab: OpenTab, serve: Serve, database: Database
) -> None:
    await add_trouble(database)
    tab = await open_tab(await serve(), viewport=PHONE, color_scheme="dark")
    page = await tab.open("/channels")
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await tab.screenshot("channels.phone.dark")
    await page.get_by_role("button", name="Enable").click()

    await expect(page.locator(".flash")).to_contain_text("called again")
    await expect(page.get_by_role("button", name="Enable")).to_have_count(0)


async def test_a_blocked_key_is_let_go_by_its_buttons(
    open_tab: OpenTab, serve: Serve, database: Database
) -> None:
    needs_korean_font()
    await add_trouble(database)
    other = await add_blocked_key(database, key="B-2", error="http_400: no such order")
    url = await serve()
    tab = await open_tab(url, viewport=WIDE)
    page = await tab.open("/events")
    await tab.screenshot("events")
    rows = page.locator("#blocked tbody tr")
    await expect(rows).to_have_count(2)
    await rows.first.get_by_role("button", name="Replay").click()
    await expect(page.locator(".flash")).to_contain_text("published again")

    row = page.locator("#blocked tbody tr", has_text="B-2")
    await row.locator("summary").click()
    await row.get_by_label("Reason").fill("wrong order")
    await tab.screenshot("events.discard")
    await row.get_by_role("button", name="Discard", exact=True).click()
    await page.locator("#confirm button[value=yes]").click()
    await expect(page.locator(".flash")).to_contain_text("discarded")
    assert other
    [(status,)] = await database.fetch(
        "SELECT status FROM outbox_messages WHERE id = %(id)s", {"id": other}
    )
    assert status == "DISCARDED"
    entries = (await AuditLog(database).list())[0]
    assert [(e.action, e.detail.get("reason")) for e in entries] == [
        ("event.discard", "wrong order"),
        ("event.replay", None),
    ]

    await tab.open(f"/events/{other}")
    await expect(page.locator("pre")).to_contain_text("1024")
    await tab.screenshot("events.detail")
    korean = await open_tab(url, viewport=PHONE, locale="ko-KR")
    page = await korean.open("/events")
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await korean.screenshot("events.phone.ko")
    wide = await open_tab(url, viewport=WIDE, locale="ko-KR", color_scheme="dark")
    await wide.open("/channels")
    await wide.screenshot("channels.ko.dark")


async def test_whatever_is_stored_stays_text(tab: ConsolePage, database: Database) -> None:
    await Rollups(database).beat(
        XSS,
        [XSS, "events"],
        slots=1,
        broken=[Broken("SLACK", XSS, 1.0), Broken("events", XSS, 1.0)],
    )
    [(identity,)] = await database.fetch(
        "INSERT INTO outbox_messages (id, topic, message_key, slot, payload, content_type, headers,"
        " status, parked, error_message)"
        " VALUES (gen_random_uuid(), %(x)s::text, %(x)s::text, 0,"
        " convert_to(%(x)s::text, 'UTF8'), 'text/plain',"
        " jsonb_build_object('h', %(x)s::text), 'DEAD', true, %(x)s::text) RETURNING id",
        {"x": XSS},
    )
    await database.fetch(
        "INSERT INTO endpoint (channel, url, disabled_at, disabled_reason)"
        " VALUES ('WEBHOOK', %(x)s, now(), %(x)s) RETURNING id",
        {"x": XSS},
    )
    for path in ("/", "/channels", "/events", f"/events/{identity}"):
        await tab.open(path)
        assert await tab.shows_as_text(), path


async def test_who_may_only_read_has_no_buttons(
    open_tab: OpenTab, serve: Serve, database: Database
) -> None:
    head = await add_trouble(database)
    tab = await open_tab(await serve(ALLIM_API_KEYS=KEYS))
    await tab.log_in(READ)
    for path in ("/", "/channels", "/events", f"/events/{head}"):
        page = await tab.open(path)
        await expect(page.locator("main form[method=post]")).to_have_count(0)
