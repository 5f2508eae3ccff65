"""Live parts in a real browser: what they leave alone, and what they do when nobody answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Page, Route, expect

from allim.database.pool import Database
from tests.console.browser.conftest import ConsolePage, OpenTab, Serve
from tests.console.conftest import ADMIN, KEYS
from tests.console.standing import add_deliveries, add_trouble

pytestmark = pytest.mark.asyncio(loop_scope="session")

PREFIX = "/hub"


async def live(tab: ConsolePage, path: str = "/") -> Page:
    """A page whose clock only the test moves."""
    await tab.page.clock.install()
    return await tab.open(path)


def polls_of(page: Page) -> list[str]:
    """What live parts ask for from now on."""
    polls: list[str] = []
    page.on(
        "request",
        lambda request: polls.append(request.url) if "hx-request" in request.headers else None,
    )
    return polls


async def next_poll(page: Page) -> None:
    """Let the time of a poll come, and its answer be shown."""
    async with page.expect_response(lambda answer: "hx-request" in answer.request.headers):
        await page.clock.run_for(5_100)


async def test_a_click_or_a_scrolled_table_does_not_stop_it(
    open_tab: OpenTab, database: Database
) -> None:
    await add_trouble(database)
    tab = await open_tab(viewport={"width": 390, "height": 844})
    page = await live(tab)
    table = page.locator("#relays .scroll")
    await table.click(position={"x": 5, "y": 5})
    assert await table.evaluate("e => document.activeElement === e")
    await table.evaluate("e => { e.scrollLeft = 60; }")
    await page.evaluate("scrollTo(0, 300)")
    await add_deliveries(database, "LOG", 7)

    await next_poll(page)

    row = page.locator("#backlog tr", has_text="LOG")
    await expect(row.locator("td").nth(1)).to_have_text("7")
    assert await table.evaluate("e => e.scrollLeft") == 60
    assert await page.evaluate("scrollY") == 300


async def test_what_is_being_copied_stays(tab: ConsolePage, database: Database) -> None:
    await add_trouble(database)
    page = await live(tab)
    polls = polls_of(page)
    await page.evaluate("getSelection().selectAllChildren(document.querySelector('.found li'))")
    copied = await page.evaluate("String(getSelection())")

    await page.clock.run_for(16_000)

    assert copied
    assert await page.evaluate("String(getSelection())") == copied
    assert polls == []
    await page.evaluate("getSelection().removeAllRanges()")
    await next_poll(page)


async def test_a_page_that_nobody_sees_asks_nothing(tab: ConsolePage) -> None:
    page = await live(tab)
    polls = polls_of(page)
    await page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true})")

    await page.clock.run_for(60_000)

    assert polls == []


async def test_a_server_that_is_gone_or_broken_is_said_until_it_answers(tab: ConsolePage) -> None:
    tab.expected += ["500", "net::ERR_FAILED", "htmx", "Response Status Error", "/console/"]
    page = await live(tab)

    async def broken(route: Route) -> None:
        await route.fulfill(status=500, body="<h1>broken</h1>")

    async def gone(route: Route) -> None:
        await route.abort()

    for answer in (broken, gone):
        await page.route("**/console/", answer)
        await page.clock.run_for(5_100)
        await expect(page.locator("#stale")).to_be_visible()
        await expect(page.locator("#stale")).to_contain_text("gives no answer")
        await expect(page.locator("#backlog")).to_be_visible()
        await page.unroute("**/console/")
        await next_poll(page)
        await expect(page.locator("#stale")).to_be_hidden()


async def test_a_session_that_ended_leads_to_the_login_and_back_to_the_page(
    open_tab: OpenTab, serve: Serve, database: Database
) -> None:
    tab = await open_tab(await serve(ALLIM_API_KEYS=KEYS))
    tab.expected.append("401")
    await tab.log_in(ADMIN)
    page = await live(tab, "/events?topic=orders")
    await database.fetch("DELETE FROM console_session RETURNING token_hash")

    await page.clock.run_for(5_100)

    await page.wait_for_url("**/console/login?next=*")
    await page.locator("input[name=key]").fill(ADMIN)
    await page.locator("main form button").click()
    await page.wait_for_url("**/console/events?topic=orders")


@asynccontextmanager
async def proxy(upstream: str) -> AsyncIterator[str]:
    """A reverse proxy that serves `upstream` beneath PREFIX; its own address."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.Response:
            async with session.request(
                request.method,
                upstream + request.raw_path.removeprefix(PREFIX),
                headers=request.headers,
                data=await request.read(),
                allow_redirects=False,
            ) as answer:
                headers = answer.headers.copy()
                headers.pop("Transfer-Encoding", None)
                return web.Response(status=answer.status, headers=headers, body=await answer.read())

        app = web.Application()
        app.router.add_route("*", PREFIX + "/{path:.*}", forward)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


async def test_behind_a_prefix_everything_works(
    open_tab: OpenTab, serve: Serve, database: Database
) -> None:
    await add_trouble(database)
    async with proxy(await serve(ALLIM_API_KEYS=KEYS, ALLIM_ROOT_PATH=PREFIX)) as address:
        tab = await open_tab(address + PREFIX)
        await tab.log_in(ADMIN)
        page = await live(tab)
        await expect(page.locator("[data-state=drawn]")).to_have_count(3)
        await next_poll(page)
        await page.locator(".found a", has_text="dead letters").click()
        await page.wait_for_url(f"{address}{PREFIX}/console/dead-letters")
        await page.go_back()
        await expect(page.locator(".found")).to_be_visible()
        await page.get_by_role("button", name="한국어").click()
        await expect(page.locator("h1")).to_have_text("개요")
        assert page.url == f"{address}{PREFIX}/console/"
        await page.get_by_role("button", name="로그아웃").click()
        await page.wait_for_url(f"{address}{PREFIX}/console/login")
        await page.close()
