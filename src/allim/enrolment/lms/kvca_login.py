"""Logging in to a kvca LMS: one token for a run, renewed once for all who wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from allim.base.clock import Clock
from allim.base.tasks import cancel_and_wait
from allim.enrolment.lms import failures
from allim.enrolment.lms.http import Call, Calls, Headers
from allim.enrolment.lms.protocol import LmsError

LOGIN = "/api/auth/login"

MARGIN_SECONDS = 60.0
MARGIN_SHARE = 0.2
"""A token is not used in its last minute, or last fifth if it is short-lived."""
LONGEST_SECONDS = 10 * 365 * 86400.0

REFUSED = "the login was refused; check LMS_USERNAME and LMS_PASSWORD"
REFUSING = frozenset({400, 401, 403, 422})
ELSEWHERE = "LMS_BASE_URL must be what stands before /api"
NO_RIGHT = "refused right after a login; the account has no right to it"


class KvcaLogin:
    """The token of one run. Logs in when it is first needed, and when the token has run out.

    However many calls find the token missing, ended or refused at once, one login is made and
    all of them take what comes of it.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        username: str,
        password: SecretStr,
        clock: Clock,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._calls = calls
        self._username = username
        self._password = password
        self._clock = clock
        self._now = now
        self._token = ""
        self._good_until = 0.0
        self._under_way: asyncio.Task[None] | None = None
        self._in_vain: dict[str, str] = {}
        """Places and the fresh token that they refused."""

    async def headers(self) -> Headers:
        """The header of a call, after a login where one is needed."""
        if not self._token or self._clock() >= self._good_until:
            if self._under_way is None:
                self._under_way = asyncio.create_task(self._log_in())
                self._under_way.add_done_callback(self._ended)
            await asyncio.shield(self._under_way)
        return {"Authorization": f"Bearer {self._token}"}

    async def renew(self, refused: Headers, place: str) -> None:
        """Do without the token that was refused, unless it is another one by now.

        A place that refused it when it was fresh is not worth another login.
        """
        token = _token_of(refused)
        if self._in_vain.get(place) == token:
            raise self.refused_again(refused, place)
        if token == self._token:
            self._token = ""

    def refused_again(self, refused: Headers, place: str) -> LmsError:
        """A fresh token was refused: it is not the token's fault."""
        self._in_vain[place] = _token_of(refused)
        return failures.upstream_http(401, place, NO_RIGHT)

    async def close(self) -> None:
        """End a login under way."""
        if self._under_way is not None:
            await cancel_and_wait(self._under_way)

    async def _log_in(self) -> None:
        asked = {
            "userId": self._username,
            "userPassword": self._password.get_secret_value(),
            "submit": None,
        }
        try:
            answer = await self._calls.json(Call(LOGIN, LOGIN, json=asked))
        except failures.UpstreamError as error:
            if error.status in REFUSING:
                raise failures.misconfigured(f"{error}: {REFUSED}") from None
            if error.status == 404:
                raise failures.misconfigured(f"{error}: {ELSEWHERE}") from None
            raise
        self._take(answer)

    def _take(self, answer: Any) -> None:
        token = answer.get("accessToken") if isinstance(answer, dict) else None
        if not token:
            raise failures.misconfigured(f"no accessToken from {LOGIN}: {REFUSED}")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise failures.unreadable(LOGIN, "its accessToken cannot be sent back")
        self._token = token
        self._good_until = self._clock() + self._good_for(answer.get("accessTokenExpiresIn"))

    def _good_for(self, expires: Any) -> float:
        """Seconds that a token may be used, from the epoch milliseconds when it ends.

        One whose end nobody understands, or that has ended already by our clock (which may be
        wrong), is used until it is refused: else every call would log in.
        """
        if isinstance(expires, bool) or not isinstance(expires, (int, float)):
            return LONGEST_SECONDS
        seconds = expires / 1000 - self._now()
        if not 0 < seconds < LONGEST_SECONDS:
            return LONGEST_SECONDS
        return seconds - min(MARGIN_SECONDS, seconds * MARGIN_SHARE)

    def _ended(self, login: asyncio.Task[None]) -> None:
        if self._under_way is login:
            self._under_way = None
        if not login.cancelled():
            login.exception()  # seen, also where whoever waited has gone away


def _token_of(headers: Headers) -> str:
    return headers["Authorization"].removeprefix("Bearer ")
