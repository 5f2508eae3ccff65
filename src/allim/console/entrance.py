"""Logging in and out, and the choice of a language."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.responses import Response

from allim.console.failed_logins import FailedLogins
from allim.console.languages import LANGUAGES
from allim.console.login_limit import SECONDS, LoginLimit
from allim.console.sessions import NOBODY, NoEntry, Sessions
from allim.console.visit import SECURITY_HEADERS, Visit
from allim.web.proxies import network_of

SESSION = "allim_session"
GUEST = "allim_guest"
"""The cookie that forms are bound to before anybody is logged in."""
_YEAR = 365 * 24 * 3600


class Entrance:
    """What is reached without a session."""

    def __init__(self, sessions: Sessions, failed: FailedLogins) -> None:
        self._sessions = sessions
        self._failed = failed
        self._limit = LoginLimit()

    def send_to_login(self, visit: Visit) -> Response:
        """To the login, and from there back to the page that was asked for."""
        if visit.request.headers.get("hx-request") == "true":
            back = visit.url("/login", next=_after(_looked_at(visit)))
            headers = {**SECURITY_HEADERS, "HX-Redirect": back}
            return Response("", 401, headers)
        if visit.request.method == "GET":
            return visit.redirect("/login", next=visit.own_path)
        return visit.redirect("/login")

    async def show(self, visit: Visit) -> Response:
        """The form; whoever is in already goes on."""
        after = _after(visit.query("next"))
        if visit.actor is not None:
            return visit.redirect(after)
        return visit.render("login.html", next=after, problem=None)

    async def log_in(self, visit: Visit) -> Response:
        """Open a session for a good key."""
        after = _after(visit.form.text("next"))
        client = network_of(visit.client)

        def refuse(status: int, problem: str) -> Response:
            return visit.render("login.html", status=status, next=after, problem=problem)

        if self._limit.refuses(client):
            await self._failed.note(NoEntry("unknown_key", NOBODY), visit.client)
            answer = refuse(429, visit.t("base.login.too_often"))
            answer.headers["Retry-After"] = str(int(SECONDS))
            return answer
        # Counted before anything is waited for, or guesses sent at once would all be let through.
        self._limit.failed(client)
        try:
            token = await self._sessions.open(visit.form.text("key") or "", visit.client)
        except NoEntry as error:
            await self._failed.note(error, visit.client)
            if error.name == NOBODY:
                return refuse(401, visit.t("base.login.unknown_key"))
            self._limit.succeeded(client)
            return refuse(403, visit.t(f"base.login.{error.code}"))
        self._limit.succeeded(client)
        answer = visit.redirect(after)
        visit.set_cookie(answer, SESSION, token, seconds=self._sessions.seconds)
        return answer

    async def log_out(self, visit: Visit) -> Response:
        """End the session, here and in the database."""
        await self._sessions.close(visit.request.cookies.get(SESSION))
        answer = visit.redirect("/login")
        answer.delete_cookie(SESSION, path=visit.cookie_path)
        return answer

    async def choose_language(self, visit: Visit) -> Response:
        """Remember the language, and show the same page in it."""
        answer = visit.redirect(_after(visit.form.text("next")))
        language = visit.form.text("language")
        if language in LANGUAGES:
            visit.set_cookie(answer, "allim_language", str(language), seconds=_YEAR)
        return answer


def _looked_at(visit: Visit) -> str | None:
    """The path of the page that htmx asked from, beneath the console's, with its query."""
    try:
        seen = urlsplit(visit.request.headers.get("hx-current-url", ""))
    except ValueError:
        return None
    return seen.path.removeprefix(visit.url("")) + (f"?{seen.query}" if seen.query else "")


def _after(path: str | None) -> str:
    # It is put behind our own root, so it cannot lead elsewhere.
    return path if path and path.startswith("/") and path.isprintable() else "/"
