"""Connections: made to allowed addresses only, and kept while they are fresh."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable

from aiohappyeyeballs import AddrInfoType, start_connection

from allim.channels.http import failure
from allim.channels.http.connection import Connection
from allim.channels.http.names import SharedLookups
from allim.channels.http.target import Place

NEXT_ADDRESS_AFTER = 0.25
"""Seconds until the next address of a name is tried beside one that is slow (RFC 8305)."""

NewSocket = Callable[[AddrInfoType], socket.socket]


class ConnectionPool:
    """The connections of one degree of trust; `new_socket` may refuse an address."""

    def __init__(self, names: SharedLookups, new_socket: NewSocket | None) -> None:
        self._names = names
        self._new_socket = new_socket
        self._idle: defaultdict[Place, list[Connection]] = defaultdict(list)
        self._open: set[Connection] = set()
        self._ready: list[Connection] = []
        self._closed = False
        self._all_ended = asyncio.Event()
        self._tls: ssl.SSLContext | None = None

    def take(self, place: Place) -> Connection | None:
        """A kept connection, the freshest; None where there is none."""
        idle = self._idle.get(place)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def connect(self, place: Place, *, timeout: float) -> Connection:
        """A new connection; `timeout` is seconds, for all of it.

        Raises HttpFailure, never an ambiguous one: nothing has been sent.
        """
        if self._closed:
            raise failure.closed()
        try:
            async with asyncio.timeout(timeout):
                connection = await self._connect(place)
            if not connection.is_usable:
                raise ConnectionResetError(errno.ECONNRESET, "it ended as soon as it stood")
        except (OSError, ValueError) as error:
            raise failure.of_connecting(error) from None
        if self._closed:
            connection.abort()
            raise failure.closed()
        self._open.add(connection)
        return connection

    async def close(self) -> None:
        """End every connection, whatever it is doing; those just being made end once they stand."""
        self._closed = True
        for connection in tuple(self._open):
            connection.abort()
        if self._open:
            await self._all_ended.wait()

    async def _connect(self, place: Place) -> Connection:
        addresses = await self._addresses(place)
        loop = asyncio.get_running_loop()
        sock = await start_connection(
            addresses,
            happy_eyeballs_delay=NEXT_ADDRESS_AFTER,
            socket_factory=self._new_socket,
        )
        connection = Connection(place, ready=self._send_soon, idle=self._keep, ended=self._forget)
        try:
            await loop.create_connection(
                lambda: connection,
                sock=sock,
                ssl=self._tls_context() if place.tls else None,
                server_hostname=place.host.rstrip(".") if place.tls else None,
            )
        except BaseException:
            # It may have stood already; TLS would take its time to say good-bye.
            connection.abort()
            sock.close()
            raise
        return connection

    async def _addresses(self, place: Place) -> list[AddrInfoType]:
        try:
            address = ipaddress.ip_address(place.host)
        except ValueError:
            found = await self._names.resolve(place.host, place.port)
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "no address") from None
            return [
                (
                    each["family"],
                    socket.SOCK_STREAM,
                    each["proto"],
                    "",
                    (each["host"], each["port"]),
                )
                for each in found
            ]
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (place.host, place.port))]

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _send_soon(self, connection: Connection) -> None:
        """Have the requests of one turn of the loop leave together.

        Each that leaves alone wakes whoever waits for it: a sixth of what a relay of webhooks did.
        """
        if not self._ready:
            asyncio.get_running_loop().call_soon(self._send_all)
        self._ready.append(connection)

    def _send_all(self) -> None:
        ready, self._ready = self._ready, []
        for connection in ready:
            connection.send()

    def _keep(self, connection: Connection) -> None:
        self._idle[connection.place].append(connection)

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(connection.place)
        if idle is not None:
            if connection in idle:
                idle.remove(connection)
            if not idle:
                del self._idle[connection.place]
        if self._closed and not self._open:
            self._all_ended.set()
