"""One request for one page: who asks, in which language, and everything a handler answers with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from allim.base.errors import RequestError
from allim.console.assets import Assets
from allim.console.flash import COOKIE as FLASH
from allim.console.flash import Flash, Mood
from allim.console.forms import Form
from allim.console.languages import LANGUAGES, Catalogue
from allim.console.rendering import Templates
from allim.console.sessions import Actor
from allim.hub.audit import AuditLog, Entry
from allim.hub.model import MAX_BIGINT
from allim.web.proxies import TrustedProxies

Answer = TypeVar("Answer")

THEMES = ("light", "dark")

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: then a form's POST would say `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "HX-Request",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same from request to request."""

    root: str
    templates: Templates
    assets: Assets
    audit: AuditLog
    catalogues: Mapping[str, Catalogue]
    navigation: tuple[tuple[str, str], ...]
    proxies: TrustedProxies

    def url(self, path: str, **query: object) -> str:
        """The address of a path of the console; what is None is left out of the query."""
        given = [(name, value) for name, value in query.items() if value not in (None, "")]
        return f"{self.root}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")

    def asset(self, name: str) -> str:
        """The address of one of our own files."""
        return self.root + self.assets.path(name)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request. `page` is the name of the page it belongs to."""

    request: Request
    setting: Setting
    t: Catalogue
    csrf: str
    page: str
    actor: Actor | None = None
    form: Form = field(default_factory=lambda: Form({}))

    @property
    def who(self) -> Actor:
        """Who asks. Behind the login there always is somebody."""
        assert self.actor is not None
        return self.actor

    @property
    def url(self) -> Callable[..., str]:
        """`url(path, **query)`: every link there is goes through it."""
        return self.setting.url

    def query(self, name: str) -> str | None:
        """A parameter of the address, without spaces around it; None where it is empty."""
        given = self.request.query_params.get(name) or ""
        # PostgreSQL's text cannot hold a NUL, so nothing that is searched for has one.
        return given.replace("\x00", "").strip()[:1000] or None

    @property
    def client(self) -> str:
        """The address that it is asked from."""
        return self.setting.proxies.client(self.request)

    @property
    def cursor(self) -> str | None:
        """Where the listing begins."""
        return self.query("cursor")

    def number(self, name: str) -> int:
        """A number in the path; 0, which nothing has, for what is too large to be one."""
        value = self.request.path_params[name]
        return int(value) if int(value) <= MAX_BIGINT else 0

    def render(self, template: str, *, status: int = 200, **context: Any) -> Response:
        """A page. For htmx only the block that has the name of the element it swaps."""
        header = self.request.headers
        block = header.get("hx-target") if header.get("hx-request") == "true" else None
        flash = Flash.from_cookie(self.request.cookies.get(FLASH)) if block is None else None
        theme = self.request.cookies.get("allim_theme")
        body = self.setting.templates.render(
            template,
            {
                "t": self.t,
                "url": self.setting.url,
                "asset": self.setting.asset,
                "actor": self.actor,
                "csrf": self.csrf,
                "here": self.page,
                "navigation": self.setting.navigation,
                "languages": LANGUAGES,
                "theme": theme if theme in THEMES else None,
                "flash": flash,
                "back": self.own_path,
                **context,
            },
            block,
        )
        answer = Response(body, status, dict(SECURITY_HEADERS), "text/html; charset=utf-8")
        if flash is not None:
            answer.delete_cookie(FLASH, path=self.cookie_path)
        return answer

    def redirect(self, path: str, flash: Flash | None = None, **query: object) -> Response:
        """To another page of the console, to be fetched with GET."""
        answer = RedirectResponse(self.url(path, **query), 303, dict(SECURITY_HEADERS))
        if flash is not None:
            self.set_cookie(answer, FLASH, flash.to_cookie(), seconds=60)
        return answer

    async def act(
        self,
        action: str,
        subject: str,
        run: Callable[[], Awaitable[object]],
        *,
        to: str,
        done: str,
        detail: Mapping[str, Any] | None = None,
        tenant: int | None = None,
        recorded: bool = False,
    ) -> Response:
        """Do what a button says, on record, and go back to the page `to`, which shows a word of it.

        `run` is the service's call, `done` the text that is shown when it returns; a
        RequestError is shown as it speaks. `recorded` is for services that write the audit
        log themselves. Form: ``visit.act("delivery.retry", "delivery 7", lambda: …, to=…)``.
        """
        try:
            if recorded:
                await run()
            else:
                await self.on_record(action, subject, run, detail=detail, tenant=tenant)
        except RequestError as error:
            return self.redirect(to, Flash(error.message, Mood.BAD))
        return self.redirect(to, Flash(done))

    async def on_record(
        self,
        action: str,
        subject: str,
        run: Callable[[], Awaitable[Answer]],
        *,
        detail: Mapping[str, Any] | None = None,
        tenant: int | None = None,
    ) -> Answer:
        """Do it on record, as `act` does, for handlers that answer in their own way."""
        entry = Entry(self.who.name, action, subject, tenant, detail)
        return await self.setting.audit.around(entry, run)

    @property
    def cookie_path(self) -> str:
        """The path that our cookies are for."""
        return self.setting.root

    def set_cookie(
        self, answer: Response, name: str, value: str, *, seconds: int | None = None
    ) -> None:
        """A cookie for the server alone. Lax, so that a link in a chat finds who is logged in."""
        answer.set_cookie(
            name,
            value,
            max_age=seconds,
            path=self.cookie_path,
            secure=self._is_secure(),
            httponly=True,
            samesite="lax",
        )

    def _is_secure(self) -> bool:
        # The browser says in Origin what it sees, also where a proxy ends TLS before us.
        origin = self.request.headers.get("origin", "")
        return origin.startswith("https://") or self.setting.proxies.is_encrypted(self.request)

    @property
    def own_path(self) -> str:
        """The path that was asked for, beneath the console's, with its query."""
        scope = self.request.scope
        path: str = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        query = scope.get("query_string", b"").decode("latin-1")
        return f"{path}?{query}" if query and self.request.method == "GET" else path
