"""Outgoing HTTP: one client for all channels, over kept connections."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from functools import lru_cache

from pydantic import Field

from allim.base.networks import Networks
from allim.base.settings import SettingsGroup
from allim.channels.channel import HttpAnswer, HttpFile
from allim.channels.http.answer import Reply
from allim.channels.http.failure import HttpFailure
from allim.channels.http.names import SharedLookups, ThreadResolver
from allim.channels.http.pool import ConnectionPool
from allim.channels.http.target import Place, Target
from allim.channels.ssrf import AddressGuard, GuardedResolver, Resolver, check_form
from allim.relay.outcomes import RESPONSE_LIMIT

CONNECT_SHARE = 0.6
"""Share of a call's time in which the connection must stand.

With that, a call that runs out of time as a whole is known to have been connected, so it may
have arrived.
"""
CONNECT_LIMIT = 10.0
PACKED = frozenset({"gzip", "deflate"})


class HttpSettings(SettingsGroup):
    """What outgoing calls may reach."""

    allim_ssrf_allow: Networks = Field(
        (),
        description="Networks (CIDR, comma-separated) that callers' URLs may lead to although"
        " they are not public.",
    )

    def guard(self) -> AddressGuard:
        """The guard with these networks allowed."""
        return AddressGuard(self.allim_ssrf_allow)


class HttpClient:
    """`OutgoingHttp`: no redirects, no cookies, no proxies from the environment.

    Callers' URLs and the operator's own have separate connections, so that a kept connection
    to an inner server is never lent to a caller. Connections are not limited here; the
    engine's concurrency is the limit.
    """

    def __init__(self, guard: AddressGuard, *, resolver: Resolver | None = None) -> None:
        self._guard = guard
        self._resolver = resolver or ThreadResolver()
        everywhere = SharedLookups(self._resolver)
        outside = SharedLookups(GuardedResolver(guard, self._resolver))
        self._lookups = (everywhere, outside)
        self._trusted = ConnectionPool(everywhere, None)
        self._guarded = ConnectionPool(outside, guard.new_socket)
        self._read_url = lru_cache(maxsize=4096)(self._read_unless_blocked)

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
        """Any method but HEAD; `limit` is how many bytes of the answer's body are taken.

        `timeout` is seconds, for all of it. Raises HttpFailure when no answer came, ValueError
        where a header has a line break in it.
        """
        target = self._read_url(url, trusted)
        request = target.request(method, headers, body)
        reply = await self._exchange(
            target.place, method, request, timeout=timeout, trusted=trusted, limit=limit
        )
        return HttpAnswer(reply.status, reply.headers, _text(reply, limit), reply.complete)

    async def fetch(self, url: str, *, timeout: float, trusted: bool, limit: int) -> HttpFile:
        """GET a file; no more than `limit` bytes of it are kept. Raises HttpFailure as `request`.

        `timeout` is seconds, for all of it. A file that says itself that it is larger is not read.
        """
        target = self._read_url(url, trusted)
        reply = await self._exchange(
            target.place,
            "GET",
            target.request("GET", {}, None),
            timeout=timeout,
            trusted=trusted,
            # One more than may be, to see whether there is more.
            limit=limit + 1,
            is_file=True,
        )
        status, headers = reply.status, reply.headers
        if status >= 300:
            return HttpFile(status, headers, b"")
        if reply.cut or len(reply.content) > limit:
            return HttpFile(status, headers, b"", too_large=True)
        if not reply.complete:
            return HttpFile(status, headers, b"", complete=False)
        return _unpacked(status, headers, reply.content, limit)

    def check_url(self, url: str) -> str | None:
        """What speaks against calling a caller's URL, without looking up its name; or None."""
        return self._guard.check_url(url)

    async def close(self) -> None:
        """Close every connection."""
        await self._trusted.close()
        await self._guarded.close()
        for lookups in self._lookups:
            await lookups.close()
        await self._resolver.close()

    async def _exchange(
        self,
        place: Place,
        method: str,
        request: bytes,
        *,
        timeout: float,
        trusted: bool,
        limit: int,
        is_file: bool = False,
    ) -> Reply:
        pool = self._trusted if trusted else self._guarded
        loop = asyncio.get_running_loop()
        ends_by = loop.time() + timeout
        may_have_arrived = False
        if (connection := pool.take(place)) is not None:
            try:
                return await connection.exchange(
                    request, timeout=timeout, limit=limit, is_file=is_file
                )
            except HttpFailure as failure:
                # The server may have closed it just then; a GET does no harm twice.
                if failure.code != "connection_lost" or method != "GET":
                    raise
                may_have_arrived = True
        time_left = ends_by - loop.time()
        try:
            connection = await pool.connect(
                place, timeout=min(time_left * CONNECT_SHARE, CONNECT_LIMIT)
            )
        except HttpFailure as failure:
            failure.ambiguous |= may_have_arrived
            raise
        return await connection.exchange(
            request, timeout=ends_by - loop.time(), limit=limit, is_file=is_file
        )

    def _read_unless_blocked(self, url: str, trusted: bool) -> Target:
        if not trusted:
            if problem := check_form(url):
                raise HttpFailure("invalid_url", f"the URL {problem}")
            if problem := self._guard.check_host(url):
                raise HttpFailure("blocked_address", f"the URL {problem}")
        return Target.of(url)


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
    # What follows the end is another part of it, or none of it: half a file is no file.
    complete = unpacking.eof and not unpacking.unused_data
    return HttpFile(status, headers, content if complete else b"", complete=complete)


def _text(reply: Reply, limit: int) -> str:
    """The body as text whatever it is: bad bytes replaced, NUL (PostgreSQL has none) left out."""
    content = reply.content
    if not content:
        return ""
    packing = reply.headers.find("Content-Encoding")
    if packing is not None and packing.lower() in PACKED:
        try:
            content = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(content, limit)
        except zlib.error:
            return ""
    return content.decode("utf-8", "replace").replace("\x00", "")
