"""The console in a real Chromium: one browser a run, one server and database a test.

Browser, server and test share the session's event loop; a test module says so with
``pytestmark = pytest.mark.asyncio(loop_scope="session")``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright, expect

from allim.database.pool import Database
from tests.console.server import serving_console
from tests.requirements import needs_program

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SCREENSHOTS = "CONSOLE_SCREENSHOTS"
"""The directory where pictures go; none are made without it."""

XSS = '<script>window.pwned=1</script>"\'><img src=x onerror="window.pwned=1">{{7*7}}${7*7}'
"""What must stay text wherever it is shown."""

_PATIENCE = 60_000.0


class ConsolePage:
    """One tab that is logged in nowhere, and remembers everything that went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        """Console errors, page errors, failed requests, violations of the policy."""
        self.expected: list[str] = []
        """Parts of complaints that the test wants to see, such as a 403."""
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("requestfailed", self._on_failed)

    async def open(self, path: str = "/") -> Page:
        """Go to a page of the console."""
        await self.page.goto(f"{self.url}/console{path}", wait_until="load")
        return self.page

    async def log_in(self, key: str) -> None:
        """Log in with an API key."""
        await self.open("/login")
        await self.page.locator("input[name=key]").fill(key)
        await self.page.locator("main form button").click()
        await self.page.wait_for_url(lambda url: "/login" not in url)

    async def confirm(self, button: str) -> None:
        """Press a button that asks first, and say yes."""
        await self.page.get_by_role("button", name=button, exact=True).first.click()
        await self.page.locator("#confirm button[value=yes]").click()

    async def flash(self) -> str:
        """What the console says of the last action."""
        return await self.page.locator(".flash").first.inner_text()

    async def screenshot(self, name: str) -> None:
        """A picture of the whole page, where they are wanted."""
        if folder := os.environ.get(SCREENSHOTS):
            Path(folder).mkdir(parents=True, exist_ok=True)
            await self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    async def shows_as_text(self, payload: str = XSS) -> bool:
        """Whether a payload stands on the page, and did nothing."""
        there = payload in await self.page.locator("body").inner_text()
        return there and not await self.page.evaluate("'pwned' in window")

    def check(self) -> None:
        """Fail for whatever went wrong and was not expected."""
        wrong = [w for w in self.wrong if not any(part in w for part in self.expected)]
        assert wrong == [], wrong

    def _on_console(self, message: object) -> None:
        kind, text = getattr(message, "type", ""), getattr(message, "text", "")
        if kind in ("error", "warning"):
            self.wrong.append(f"{kind}: {text}")

    def _on_failed(self, request: Request) -> None:
        # A poll under way when the page is left is cut off by the browser.
        if request.failure != "net::ERR_ABORTED":
            self.wrong.append(f"failed: {request.url} {request.failure}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium. Skipped without it; fails where all tests are required."""
    chromium = needs_program(*CHROMIUM)
    expect.set_options(timeout=_PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium,
            args=["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])],
            timeout=_PATIENCE * 2,
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database of this test alone, on the session's loop."""
    async with Database(database_url) as database:
        yield database


Serve = Callable[..., Awaitable[str]]
OpenTab = Callable[..., Awaitable[ConsolePage]]


@pytest_asyncio.fixture(loop_scope="session")
async def serve(database: Database) -> AsyncIterator[Serve]:
    """Starts the API with settings of the test's choice; its URL."""
    async with AsyncExitStack() as stack:

        async def start(**settings: str) -> str:
            return await stack.enter_async_context(serving_console(database, **settings))

        yield start


@pytest_asyncio.fixture(loop_scope="session")
async def open_tab(browser: Browser, serve: Serve) -> AsyncIterator[OpenTab]:
    """Opens tabs: `open_tab(url, locale="ko-KR", color_scheme="dark", timezone_id=…, viewport=…)`.

    Without an URL it starts a console without keys. After the test every tab is checked.
    """
    tabs: list[ConsolePage] = []
    contexts: list[BrowserContext] = []

    async def open_(url: str | None = None, **options: object) -> ConsolePage:
        wanted = {"locale": "en-US", "timezone_id": "Asia/Seoul", **options}
        context = await browser.new_context(**wanted)  # type: ignore[arg-type]
        context.set_default_timeout(_PATIENCE)
        contexts.append(context)
        tab = ConsolePage(await context.new_page(), url or await serve())
        tabs.append(tab)
        return tab

    yield open_
    for context in contexts:
        await context.close()
    for tab in tabs:
        tab.check()


@pytest_asyncio.fixture(loop_scope="session")
async def tab(open_tab: OpenTab) -> ConsolePage:
    """A tab on a console without keys: whoever looks may do everything."""
    return await open_tab()
