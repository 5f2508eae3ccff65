"""The console as one ASGI application, with the login before every page."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from starlette.convertors import IntegerConvertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

from allim.base.errors import DatabaseUnavailable, Forbidden, NotFound, RequestError
from allim.console.assets import Assets
from allim.console.entrance import GUEST, SESSION, Entrance
from allim.console.failed_logins import FailedLogins
from allim.console.forms import Form
from allim.console.languages import LANGUAGES, Catalogue, choose_language
from allim.console.page import Action, Page
from allim.console.pages import pages_of
from allim.console.rendering import Templates
from allim.console.services import ConsoleServices
from allim.console.sessions import Sessions, csrf_token
from allim.console.settings import ConsoleSettings
from allim.console.visit import Setting, Visit
from allim.web.access import CONSOLE
from allim.web.proxies import TrustedProxies
from allim.web.settings import AccessSettings

log = logging.getLogger("allim.console")

Answering = Callable[[Visit], Awaitable[Response]]


def make_console(services: ConsoleServices) -> Router:
    """The console, to be mounted at `/console`. Raises ConfigurationError for its settings."""
    return Console(services).router()


class Console:
    """Wraps every handler in what all of them need."""

    def __init__(self, services: ConsoleServices) -> None:
        settings = services.environment.read(ConsoleSettings)
        access = services.environment.read(AccessSettings)
        self._pages: Sequence[Page] = pages_of(services)
        self._sessions = Sessions(
            services.database, services.keys, settings.allim_console_session_hours
        )
        self._entrance = Entrance(self._sessions, FailedLogins(services.audit))
        self._setting = Setting(
            root=settings.allim_root_path + CONSOLE,
            templates=Templates(),
            assets=Assets(),
            audit=services.audit,
            catalogues={language: Catalogue(language) for language in LANGUAGES},
            navigation=tuple((page.name, page.actions[0].path) for page in self._pages),
            proxies=TrustedProxies(access.allim_trusted_proxies),
        )

    def router(self) -> Router:
        """Every path beneath `/console`."""
        entrance = self._entrance
        routes: list[BaseRoute] = [
            Route("/static/{version}/{name}", self._setting.assets.serve),
            self._route("/login", "GET", self._open_to_all(entrance.show)),
            self._route("/login", "POST", self._open_to_all(entrance.log_in)),
            self._route("/logout", "POST", self._open_to_all(entrance.log_out)),
            self._route("/language", "POST", self._open_to_all(entrance.choose_language)),
        ]
        for page in self._pages:
            routes += [
                self._route(action.path, action.method, self._behind_login(action), page.name)
                for action in page.actions
            ]
        return Router(routes, redirect_slashes=False, default=self._nothing_there)

    def _route(self, path: str, method: str, answer: Answering, page: str = "login") -> Route:
        async def endpoint(request: Request) -> Response:
            return await self._serve(request, page, answer)

        route = Route(path, endpoint, methods=[method], name=f"{page}:{path}")
        route.param_convertors = {
            name: _Number() if isinstance(convertor, IntegerConvertor) else convertor
            for name, convertor in route.param_convertors.items()
        }
        return route

    async def _nothing_there(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def nothing(visit: Visit) -> Response:
            known = await self._authenticated(visit)
            if isinstance(known, Response):
                return known
            return _failure(known, NotFound("no_route", visit.t("base.nothing_there")))

        answer = await self._serve(Request(scope, receive), "none", nothing)
        await answer(scope, receive, send)

    async def _serve(self, request: Request, page: str, answer: Answering) -> Response:
        cookies = request.cookies
        guest = cookies.get(GUEST)
        fresh = None if guest or cookies.get(SESSION) else secrets.token_urlsafe(24)
        language = choose_language(
            cookies.get("allim_language"), request.headers.get("accept-language")
        )
        secret = cookies.get(SESSION) or guest or fresh or ""
        visit = Visit(
            request, self._setting, self._setting.catalogues[language], csrf_token(secret), page
        )
        try:
            if request.method == "POST":
                visit = replace(visit, form=await _checked_form(visit))
            response = await answer(visit)
        except Exception as error:  # The boundary: whoever looks gets a page that says it.
            response = _failure(visit, error)
        if fresh is not None:
            visit.set_cookie(response, GUEST, fresh)
        return response

    def _open_to_all(self, answer: Answering) -> Answering:
        async def run(visit: Visit) -> Response:
            token = visit.request.cookies.get(SESSION)
            return await answer(replace(visit, actor=await self._sessions.actor(token)))

        return run

    def _behind_login(self, action: Action) -> Answering:
        async def run(visit: Visit) -> Response:
            known = await self._authenticated(visit)
            if isinstance(known, Response):
                return known
            try:
                known.who.require(action.scope)
                return await action.handle(known)
            except Exception as error:  # As in `_serve`, for somebody whom we know.
                return _failure(known, error)

        return run

    async def _authenticated(self, visit: Visit) -> Visit | Response:
        actor = await self._sessions.actor(visit.request.cookies.get(SESSION))
        if actor is None:
            return self._entrance.send_to_login(visit)
        return replace(visit, actor=actor)


class _Number(IntegerConvertor):
    """Thousands of digits are no error of ours: cut, they are still too large to be anything."""

    def convert(self, value: str) -> int:
        return int(value[:30])


async def _checked_form(visit: Visit) -> Form:
    form = await Form.read(visit.request)
    given = visit.request.headers.get("x-csrf-token") or form.text("csrf") or ""
    if not hmac.compare_digest(given.encode(), visit.csrf.encode()):
        raise Forbidden("csrf", visit.t("base.csrf"))
    return form


def _failure(visit: Visit, error: Exception) -> Response:
    if isinstance(error, RequestError):
        return visit.render("error.html", status=error.status, message=error.message)
    if isinstance(error, DatabaseUnavailable):
        log.warning("database unavailable: %s", error)
        return visit.render("error.html", status=503, message=visit.t("base.no_database"))
    log.error("unexpected error on %s", visit.page, exc_info=error)
    return visit.render("error.html", status=500, message=visit.t("base.unexpected"))
