"""What every page does in a browser."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from allim.database.pool import Database
from allim.hub.audit import record
from allim.web.access import AccessScope
from allim.web.keys import create_key
from tests.console.browser.conftest import XSS, ConsolePage, OpenTab, Serve
from tests.console.conftest import ADMIN, KEYS
from tests.console.test_login import PAGES
from tests.requirements import needs_korean_font

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_every_page_loads_without_a_complaint(tab: ConsolePage) -> None:
    for path in PAGES:
        page = await tab.open(path)
        await expect(page.locator("h1")).to_be_visible()
        await expect(page.locator(".bar a[aria-current=page]")).to_have_count(1)
    tab.check()


async def test_a_key_is_made_and_revoked_by_its_buttons(open_tab: OpenTab, serve: Serve) -> None:
    tab = await open_tab(await serve(ALLIM_API_KEYS=KEYS))
    await tab.log_in(ADMIN)
    page = await tab.open("/keys")
    await page.locator("input[name=name]").fill("shop")
    await page.locator("input[value=send]").check()
    await page.get_by_role("button", name="Create the key").click()
    await expect(page.locator("#token")).to_have_text(re.compile(r"^allim_[\w-]{43}$"))
    await tab.open("/keys")
    await tab.screenshot("keys")

    await page.get_by_role("button", name="Revoke").click()
    await page.locator("#confirm button[value=no]").click()
    await expect(page.locator(".badge.valid")).to_have_count(1)
    await tab.confirm("Revoke")

    await expect(page.locator(".flash")).to_contain_text("is revoked")
    await expect(page.locator(".badge.revoked")).to_have_count(1)
    await tab.open("/audit")
    # The login, too.
    await expect(page.locator("tbody tr")).to_have_count(3)
    await tab.screenshot("audit")


async def test_times_are_in_the_viewers_zone_and_exact_on_hover(
    open_tab: OpenTab, serve: Serve, database: Database
) -> None:
    await create_key(database, "k", [AccessScope.READ])
    await database.fetch(
        "UPDATE api_key SET created_at = '2026-01-31T20:30:05Z', revoked_at = now() RETURNING id"
    )
    tab = await open_tab(await serve())
    page = await tab.open("/keys")

    time = page.locator("td time").first
    await expect(time).to_have_text("2026-02-01 05:30:05")
    await expect(time).to_have_attribute("title", "2026-01-31T20:30:05Z (Asia/Seoul)")


async def test_the_theme_follows_the_system_and_the_toggle(open_tab: OpenTab) -> None:
    tab = await open_tab(color_scheme="dark")
    page = await tab.open("/keys")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = await page.evaluate(background)

    await page.locator("[data-theme-toggle]").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "light")
    await tab.open("/audit")
    await expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert await page.evaluate(background) != dark


async def test_korean_is_chosen_and_drawn(open_tab: OpenTab) -> None:
    needs_korean_font()
    tab = await open_tab(locale="ko-KR")
    page = await tab.open("/keys")

    await expect(page.locator("h1")).to_have_text("API 키")
    await tab.screenshot("keys.ko")
    await page.get_by_role("button", name="English").click()
    await expect(page.locator("h1")).to_have_text("Keys")


async def test_a_phone_shows_the_menu_and_needs_no_sideways_scrolling(open_tab: OpenTab) -> None:
    tab = await open_tab(viewport={"width": 375, "height": 700})
    page = await tab.open("/keys")

    for path in PAGES:
        await tab.open(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 375, path
    await page.locator(".menu summary").click()
    await page.locator(".menu").get_by_role("link", name="Keys").click()
    await expect(page.locator("h1")).to_have_text("Keys")


async def test_the_keyboard_is_enough(tab: ConsolePage) -> None:
    page = await tab.open("/audit")

    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await page.keyboard.press("/")
    await expect(page.locator("[data-search]")).to_be_focused()


async def test_what_is_stored_stays_text(tab: ConsolePage, database: Database) -> None:
    async with database.transaction() as tx:
        await record(tx, actor=XSS, action=XSS, subject=XSS, detail={"x": XSS})
    page = await tab.open("/audit")
    await page.locator("td details summary").click()

    assert await tab.shows_as_text()
