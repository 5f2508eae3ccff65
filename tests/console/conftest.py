"""The console over real sockets, asked by a client that keeps cookies as a browser does."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from html import unescape
from typing import Any

import aiohttp
import pytest

from allim.console.sessions import LOGIN
from allim.database.pool import Database
from allim.hub.audit import AuditLog, AuditRow
from tests.console.server import serving_console

READ = "read-secret-0123456789"
ADMIN = "admin-secret-0123456789"
OPERATE = "operate-secret-0123456789"
SEND = "send-secret-0123456789"
TENANT = "tenant-secret-0123456789"
KEYS = (
    f"reader:{READ}:read,boss:{ADMIN}:admin,ops:{OPERATE}:operate,sender:{SEND}:send,"
    f"shop:{TENANT}:operate:5"
)
_CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')


@dataclass
class Shown:
    """What the console answered."""

    status: int
    headers: Any
    text: str

    @property
    def words(self) -> str:
        """The text without its tags."""
        return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", self.text)))


class Visitor:
    """Goes through the console with cookies and forms, and without scripts."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session
        self.csrf = ""

    async def get(self, path: str, *, follow: bool = True, **more: Any) -> Shown:
        """Open a page; `path` is beneath /console."""
        return await self._call("GET", path, allow_redirects=follow, **more)

    async def post(
        self, path: str, *, csrf: str | None = None, follow: bool = True, **fields: Any
    ) -> Shown:
        """Send a form with the token of the page seen last."""
        form = {"csrf": self.csrf if csrf is None else csrf, **fields}
        return await self._call("POST", path, data=form, allow_redirects=follow)

    async def log_in(self, key: str, **headers: str) -> Shown:
        """Log in with a key; `headers` with underscores, as a proxy adds them."""
        await self.get("/login")
        form = {"csrf": self.csrf, "key": key, "next": "/keys"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._call("POST", "/login", data=form, headers=named)

    async def _call(self, method: str, path: str, **more: Any) -> Shown:
        async with self.session.request(method, f"{self.url}/console{path}", **more) as answer:
            shown = Shown(answer.status, answer.headers, await answer.text())
        if found := _CSRF.search(shown.text):
            self.csrf = found[1]
        return shown


Open = Callable[..., Awaitable[Visitor]]


async def on_record(database: Database) -> list[AuditRow]:
    """What was done, the newest first; logins left out."""
    entries, _ = await AuditLog(database).list()
    return [entry for entry in entries if entry.action != LOGIN]


@pytest.fixture
async def open_console(database: Database) -> AsyncIterator[Open]:
    """Starts a server with settings of the test's choice, and visits it."""
    async with AsyncExitStack() as stack:

        async def start(**settings: str) -> Visitor:
            url = await stack.enter_async_context(serving_console(database, **settings))
            jar = aiohttp.CookieJar(unsafe=True)
            session = aiohttp.ClientSession(cookie_jar=jar)
            return Visitor(url, await stack.enter_async_context(session))

        yield start


@pytest.fixture
async def visitor(open_console: Open) -> Visitor:
    """A console without keys."""
    return await open_console()


@pytest.fixture
async def guarded(open_console: Open) -> Visitor:
    """A console that wants a key; nobody is logged in."""
    return await open_console(ALLIM_API_KEYS=KEYS)
