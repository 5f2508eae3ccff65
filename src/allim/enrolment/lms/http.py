"""Calls to the operator's own LMS: JSON over HTTP, with patience, and errors in our words."""

from __future__ import annotations

import asyncio
import codecs
import errno
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from allim.channels.answers import retry_after
from allim.channels.http.connection import KEEP_ALIVE
from allim.channels.http.names import ThreadResolver
from allim.enrolment.lms import failures
from allim.enrolment.lms.json_array import JsonArray, NotAnArray, refuse_constant
from allim.enrolment.lms.patience import Manners, Patience
from allim.enrolment.lms.protocol import LmsError

ANSWER_LIMIT = 16 * 1024 * 1024
"""The most bytes of an answer that is read at once."""
LISTING_LIMIT = 1024 * 1024 * 1024
"""The most bytes of a listing, which is read item by item."""
CONNECT_SECONDS = 10.0
KOREAN_CHARSETS = frozenset({"euc-kr", "euc_kr", "cp949", "ms949", "uhc", "ks_c_5601-1987"})


Headers = Mapping[str, str]


class Login(Protocol):
    """What calls are let in by. May raise LmsError."""

    async def headers(self) -> Headers:
        """The headers to send."""

    async def renew(self, refused: Headers, place: str) -> None:
        """A place answered 401 to these headers: see to other ones."""

    def refused_again(self, refused: Headers, place: str) -> LmsError:
        """It answered 401 to the other ones too: what to say."""


@dataclass(frozen=True, slots=True)
class Call:
    """One POST; `place` is what errors call it, `json` or `form` its body."""

    path: str
    place: str
    json: Mapping[str, Any] | None = None
    form: Mapping[str, str] | None = None
    login: Login | None = None


class Passing(Exception):
    """What went wrong may be gone the next time; `error` is what to say where it is not."""

    def __init__(self, error: LmsError, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


class _Names(AbstractResolver):
    """Our way of looking names up, for aiohttp."""

    def __init__(self) -> None:
        self._threads = ThreadResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [ResolveResult(**each) for each in await self._threads.resolve(host, port, family)]

    async def close(self) -> None:
        await self._threads.close()


class Connections:
    """The kept connections to one LMS: no redirects, no cookies, no proxies."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._resolver = _Names()

    def post(self, call: Call, headers: Headers) -> Any:
        """Begin a call; what aiohttp gives for it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=KEEP_ALIVE, resolver=self._resolver
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "allim", "Accept": "application/json"},
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
            )
        return self._session.post(
            self._base_url + call.path,
            json=call.json,
            data=call.form,
            headers=headers,
            allow_redirects=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await self._resolver.close()


Read = Callable[[Any], Any]


class Calls:
    """One run's calls. Repeats those that failed in a passing way; raises LmsError.

    429, 5xx, timeouts and broken connections are passing (every call only reads, so a repeat
    does no harm); a Retry-After is heeded as far as the budget goes. 401 is answered by one
    new login.
    """

    def __init__(self, connections: Connections, manners: Manners) -> None:
        self._connections = connections
        self._manners = manners
        self._permits = asyncio.Semaphore(manners.concurrency)
        self._open: set[aiohttp.ClientResponse] = set()
        self._ended = False

    async def json(self, call: Call, read: Read = lambda answer: answer) -> Any:
        """A whole answer, as `read` takes it; that may raise `Passing` to have it repeated."""
        request = _Request(call, self._manners)
        while True:
            try:
                await request.log_in()
                async with self._permits, self._answer(request) as response:
                    content = await _whole(_Body(response, request, ANSWER_LIMIT))
                return read(_parsed(content, response, call.place))
            except (Passing, failures.Unauthorized) as error:
                await request.survive(error)

    async def array(
        self, call: Call, *, begun_again: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[list[Any]]:
        """The items of an answer that is an array, some at a time, while it comes in.

        Ends without an error only where the array was closed and the answer whole. When the
        connection breaks within it, it is asked for again; `begun_again` is called where items
        were given before, for they will come once more.
        """
        request, given = _Request(call, self._manners), False
        while True:
            try:
                await request.log_in()
                async with self._answer(request, permits=self._permits) as response:
                    body = _Body(response, request, LISTING_LIMIT)
                    array, text = JsonArray(), _decoder(response)
                    while part := await body.more():
                        if items := array.feed(text.decode(part)):
                            given = True
                            yield items
                    if items := array.feed(text.decode(b"", True)) + array.end():
                        yield items
                    return
            except NotAnArray as problem:
                raise failures.unreadable(call.place, str(problem)) from None
            except (Passing, failures.Unauthorized) as error:
                await request.survive(error)
                if given:
                    begun_again()

    def close(self) -> None:
        """Break what is still being read; no call is made any more."""
        self._ended = True
        for response in tuple(self._open):
            response.close()
        self._open.clear()

    @asynccontextmanager
    async def _answer(
        self, request: _Request, *, permits: asyncio.Semaphore | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer's head; with `permits`, one is held only until it is there.

        A listing must not hold one while it is read: its reader asks for details meanwhile.
        """
        place = request.call.place
        if self._ended:
            raise failures.run_has_ended(place)
        try:
            async with permits or nullcontext(), request.patience.waiting():
                response = await self._connections.post(request.call, request.headers)
        except ValueError:
            # A host name or a port that cannot be one comes as far as this.
            raise failures.misconfigured(f"LMS_BASE_URL cannot be called ({place})") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _of_connection(error, place) from None
        self._open.add(response)
        try:
            _refuse_bad(response, place)
            yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _of_connection(error, place) from None
        finally:
            self._open.discard(response)
            response.release()


class _Request:
    """One request: what is left of its patience, and its tries so far."""

    def __init__(self, call: Call, manners: Manners) -> None:
        self.call = call
        self.patience = Patience(manners)
        self.headers: Headers = {}
        self._manners = manners
        self._repeats = 0
        self._renewed = False

    async def log_in(self) -> None:
        """See to the headers. Before a permit is taken: a login needs one."""
        if self.call.login is not None:
            self.headers = await self.call.login.headers()

    async def survive(self, error: Passing | failures.Unauthorized) -> None:
        """Come back when it is to be tried again; else raise what to say."""
        if isinstance(error, failures.Unauthorized):
            login, place = self.call.login, self.call.place
            if login is None:
                raise error
            if self._renewed:
                raise login.refused_again(self.headers, place) from None
            self._renewed = True
            await login.renew(self.headers, place)
            return
        wait = self._manners.wait_before(self._repeats, error.retry_after)
        if self._repeats >= self._manners.retries or not await self.patience.pause(wait):
            raise error.error from None
        self._repeats += 1


class _Body:
    """An answer's body as it comes in, up to a limit."""

    def __init__(self, response: aiohttp.ClientResponse, request: _Request, limit: int) -> None:
        self._content = response.content
        self._request = request
        self._left = limit

    async def more(self) -> bytes:
        """The next part; empty at the end."""
        async with self._request.patience.waiting():
            part = await self._content.readany()
        self._left -= len(part)
        if self._left < 0:
            raise failures.unreadable(self._request.call.place, "it is too long")
        return part


async def _whole(body: _Body) -> bytes:
    parts = []
    while part := await body.more():
        parts.append(part)
    return b"".join(parts)


def _refuse_bad(response: aiohttp.ClientResponse, place: str) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    if status == 429 or status >= 500:
        raise Passing(failures.upstream_http(status, place), retry_after(response.headers))
    hint = "it redirects; set LMS_BASE_URL to where that leads" if 300 <= status < 400 else ""
    raise failures.upstream_http(status, place, hint)


def _parsed(content: bytes, response: aiohttp.ClientResponse, place: str) -> Any:
    text = _decoder(response).decode(content, True).strip()
    if not text:
        raise failures.unreadable(place, "it is empty")
    if text.startswith("<"):
        raise failures.unreadable(place, "HTML instead of JSON")
    try:
        return json.loads(text, parse_constant=refuse_constant)
    except RecursionError:
        raise failures.unreadable(place, "it is nested too deeply") from None
    except ValueError:
        raise failures.unreadable(place, "it is malformed or ends in the middle") from None


def _decoder(response: aiohttp.ClientResponse) -> codecs.IncrementalDecoder:
    """Text in UTF-8, or in a Korean charset the answer names; what is no text is replaced."""
    korean = (response.charset or "").lower() in KOREAN_CHARSETS
    return codecs.getincrementaldecoder("cp949" if korean else "utf-8-sig")("replace")


def _of_connection(error: Exception, place: str) -> Exception:
    """What an exception of the client means; sentences are ours, for theirs hold the URL."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return failures.misconfigured(f"the LMS's certificate is not trusted ({place})")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Passing(failures.not_connected(place, "its host name could not be resolved"))
    if isinstance(error, TimeoutError) or getattr(error, "errno", None) == errno.ETIMEDOUT:
        return Passing(failures.timed_out(place))
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        words = os.strerror(cause.errno).lower() if cause.errno else type(cause).__name__
        return Passing(failures.not_connected(place, words))
    if isinstance(error, aiohttp.ClientResponseError):
        return failures.unreadable(place, "it is not HTTP")
    return Passing(failures.connection_lost(place))
