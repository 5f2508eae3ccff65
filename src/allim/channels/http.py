"""Outgoing HTTP: one client for all channels, over kept connections."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Literal

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import Field, field_validator
from yarl import URL

from allim.base.settings import SettingsGroup
from allim.channels.channel import HttpAnswer, HttpFile
from allim.channels.ssrf import (
    NOT_PUBLIC,
    AddressBlocked,
    AddressGuard,
    GuardedResolver,
    check_form,
)
from allim.relay.outcomes import RESPONSE_LIMIT

CONNECT_SHARE = 0.6
"""Share of a call's time in which the connection must stand.

With that, a call that runs out of time as a whole is known to have been connected, so it may
have arrived.
"""
CONNECT_LIMIT = 10.0
KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than servers do (Node.js and Apache 5), so that no
request meets a connection that the server is just closing."""
PACKED = frozenset({"gzip", "deflate"})
NAME_LOOKUPS = 32
"""Names looked up at once: one that hangs must not stop the others."""

FailureCode = Literal[
    "connect_failed", "timeout", "connection_lost", "bad_answer", "blocked_address", "invalid_url"
]


class HttpSettings(SettingsGroup):
    """What outgoing calls may reach."""

    allim_ssrf_allow: tuple[str, ...] = Field(
        (),
        description="Networks (CIDR, comma-separated) that callers' URLs may lead to although"
        " they are not public.",
    )

    @field_validator("allim_ssrf_allow", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allim_ssrf_allow")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value

    def guard(self) -> AddressGuard:
        """The guard with these networks allowed."""
        return AddressGuard(ipaddress.ip_network(network) for network in self.allim_ssrf_allow)


class HttpFailure(Exception):
    """No answer came. `ambiguous`: the request may have reached the server all the same.

    The text is a sentence for people; it never holds the URL.
    """

    def __init__(self, code: FailureCode, sentence: str, *, ambiguous: bool = False) -> None:
        super().__init__(sentence)
        self.code: FailureCode = code
        self.ambiguous = ambiguous


class HttpClient:
    """`OutgoingHttp` on aiohttp: no redirects, no cookies, no proxies from the environment.

    Callers' URLs and the operator's own have separate connections, so that a kept connection
    to an inner server is never lent to a caller. Connections are not limited here; the
    engine's concurrency is the limit.
    """

    def __init__(self, guard: AddressGuard, *, resolver: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._resolver = resolver or ThreadResolver()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._parse = lru_cache(maxsize=4096)(self._parse_unless_blocked)

    async def post(
        self,
        url: str,
        *,
        body: bytes,
        headers: Mapping[str, str],
        timeout: float,
        trusted: bool,
    ) -> HttpAnswer:
        """POST; `timeout` is seconds, for all of it. Raises HttpFailure when no answer came."""
        return await self.request(
            "POST", url, body=body, headers=headers, timeout=timeout, trusted=trusted
        )

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        trusted: bool,
        body: bytes | None = None,
        limit: int = RESPONSE_LIMIT,
    ) -> HttpAnswer:
        """Any method; `limit` is how many bytes of the answer's body are taken.

        `timeout` is seconds, for all of it. Raises HttpFailure when no answer came.
        """
        target = self._parse(url, trusted)
        session = self._sessions.get(trusted) or self._open_session(trusted)
        try:
            async with session.request(
                method,
                target,
                data=body,
                headers=headers,
                timeout=_client_timeout(timeout),
                allow_redirects=False,
            ) as response:
                content, complete = await _read(response, limit)
                return HttpAnswer(
                    response.status, response.headers, _text(response, content, limit), complete
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _failure(error) from None

    async def fetch(self, url: str, *, timeout: float, trusted: bool, limit: int) -> HttpFile:
        """GET a file; no more than `limit` bytes of it are taken. Raises HttpFailure as `request`.

        `timeout` is seconds, for all of it. A file that says itself that it is larger is not read.
        """
        target = self._parse(url, trusted)
        session = self._sessions.get(trusted) or self._open_session(trusted)
        try:
            async with session.get(
                target, timeout=_client_timeout(timeout), allow_redirects=False
            ) as response:
                status, headers = response.status, response.headers
                if status >= 300 or (response.content_length or 0) > limit:
                    response.close()
                    return HttpFile(status, headers, b"", too_large=status < 300)
                content = bytearray()
                try:
                    async for part in response.content.iter_any():
                        content += part
                        if len(content) > limit:
                            response.close()
                            return HttpFile(status, headers, b"", too_large=True)
                except (aiohttp.ClientError, TimeoutError, OSError):
                    return HttpFile(status, headers, b"", complete=False)
                return _unpacked(status, headers, bytes(content), limit)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _failure(error) from None

    def check_url(self, url: str) -> str | None:
        """What speaks against calling a caller's URL, without looking up its name; or None."""
        return self._guard.check_url(url)

    async def close(self) -> None:
        """Close every connection."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()
        await self._resolver.close()

    def _open_session(self, trusted: bool) -> aiohttp.ClientSession:
        resolver = self._resolver
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEP_ALIVE,
            resolver=resolver if trusted else GuardedResolver(self._guard, resolver),
            socket_factory=None if trusted else self._guard.new_socket,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": "allim", "Accept-Encoding": "identity"},
            read_bufsize=RESPONSE_LIMIT,
        )
        self._sessions[trusted] = session
        return session

    def _parse_unless_blocked(self, url: str, trusted: bool) -> URL:
        if not trusted:
            if problem := check_form(url):
                raise HttpFailure("invalid_url", f"the URL {problem}")
            if problem := self._guard.check_host(url):
                raise HttpFailure("blocked_address", f"the URL {problem}")
        try:
            parsed = URL(url)
        except ValueError:
            raise HttpFailure("invalid_url", "the URL cannot be read") from None
        if parsed.scheme not in ("http", "https") or not parsed.raw_host:
            raise HttpFailure("invalid_url", "the URL is not one of http:// or https://")
        return parsed


class ThreadResolver(AbstractResolver):
    """Looks names up in threads of its own, so that slow ones hold up nothing else."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name; OSError where it has none."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(NAME_LOOKUPS, thread_name_prefix="allim-names")
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(
                host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            ),
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Let the threads go; what they look up now is not waited for."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)


@lru_cache(maxsize=64)
def _client_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, connect=min(seconds * CONNECT_SHARE, CONNECT_LIMIT))


async def _read(response: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """Up to `limit` bytes, and whether the answer came to its end or to that limit.

    The rest of a longer body is never fetched: leaving it unread closes the connection.
    """
    content = b""
    try:
        while len(content) < limit:
            part = await response.content.read(limit - len(content))
            if not part:
                break
            content = content + part if content else part
    except (aiohttp.ClientError, TimeoutError, OSError):
        return content, False
    return content, True


def _unpacked(status: int, headers: Mapping[str, str], content: bytes, limit: int) -> HttpFile:
    """A file that came whole, as it is: some stores pack what they send although nobody asked."""
    if headers.get("Content-Encoding", "").lower() not in PACKED:
        return HttpFile(status, headers, content)
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        content = unpacking.decompress(content, limit + 1)
    except zlib.error:
        return HttpFile(status, headers, b"", complete=False)
    if len(content) > limit:
        return HttpFile(status, headers, b"", too_large=True)
    return HttpFile(status, headers, content if unpacking.eof else b"", complete=unpacking.eof)


def _text(response: aiohttp.ClientResponse, content: bytes, limit: int) -> str:
    """The body as text whatever it is: bad bytes replaced, NUL (PostgreSQL has none) left out."""
    if not content:
        return ""
    if response.headers.get("Content-Encoding", "").lower() in PACKED:
        try:
            content = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(content, limit)
        except zlib.error:
            return ""
    return content.decode("utf-8", "replace").replace("\x00", "")


def _failure(error: Exception) -> HttpFailure:
    """What an exception of the client means; sentences are ours, for theirs hold the URL."""
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        if isinstance(cause, AddressBlocked):
            return HttpFailure("blocked_address", f"the URL {NOT_PUBLIC}")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return HttpFailure("connect_failed", "the host name could not be resolved")
        return HttpFailure("connect_failed", f"could not connect: {_reason(cause)}")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return HttpFailure("connect_failed", "the server's certificate is not trusted")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return HttpFailure("timeout", "no connection within the time limit")
    if isinstance(error, aiohttp.InvalidURL):
        return HttpFailure("invalid_url", "the URL cannot be called")
    if isinstance(error, TimeoutError):
        return HttpFailure("timeout", "no answer within the time limit", ambiguous=True)
    if isinstance(error, (aiohttp.ServerDisconnectedError, OSError)):
        return HttpFailure(
            "connection_lost", "the connection broke before an answer came", ambiguous=True
        )
    return HttpFailure("bad_answer", "what came back is not HTTP", ambiguous=True)


def _reason(cause: OSError) -> str:
    """The system's words; those of asyncio would repeat the address."""
    return os.strerror(cause.errno).lower() if cause.errno else type(cause).__name__
