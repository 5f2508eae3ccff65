"""HTTP servers and connections that do nothing by themselves: the test says every byte."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import psutil
from aiohttp.abc import AbstractResolver, ResolveResult

from allim.channels.http.client import HttpClient
from allim.channels.http.connection import Connection
from allim.channels.http.target import Place
from allim.channels.ssrf import AddressGuard

LOCAL = AddressGuard([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")])
LONG = 30.0
"""Seconds in which anything that comes at all has come."""


def an_answer(body: bytes = b"ok", *lines: str) -> bytes:
    """A whole one, after which the connection goes on."""
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *lines]
    return "".join(f"{line}\r\n" for line in head).encode() + b"\r\n" + body


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """What runs within leaves no task, and the loop does not complain."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    tasks = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - tasks if "allim/channels" in repr(task)]
    # Not all of the process: what is complained about is young.
    gc.collect(1)
    assert not left
    assert not complaints


@asynccontextmanager
async def a_client(resolver: AbstractResolver | None = None) -> AsyncIterator[HttpClient]:
    """A client, closed in the end, of which nothing is left then."""
    async with nothing_left():
        client = HttpClient(LOCAL, resolver=resolver)
        try:
            yield client
        finally:
            await client.close()


async def files_are(count: int) -> None:
    """Wait until no more than so many files and sockets are open."""
    process = psutil.Process()
    async with asyncio.timeout(LONG):
        while process.num_fds() > count:
            await asyncio.sleep(0)


class Addresses(AbstractResolver):
    """Every name has these; where several lists are given, others each time, the last for good."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=0,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        return


class Peer:
    """The server's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._read = b""

    async def request(self) -> bytes:
        """The next request, whole."""
        await self.head()
        head, _, rest = self._read.partition(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length: ")
        size = int(length.split(b"\r\n")[0] or 0)
        while len(rest) < size:
            await self._more()
            rest = self._read.partition(b"\r\n\r\n")[2]
        self._read = rest[size:]
        return head + b"\r\n\r\n" + rest[:size]

    async def head(self) -> None:
        """Read until the head of a request is there, and not much more."""
        while b"\r\n\r\n" not in self._read:
            await self._more()

    async def some(self) -> None:
        """Wait until anything has come."""
        await self._more()

    def send(self, data: bytes) -> None:
        """Send at once, whether anybody asked or not."""
        self._sock.sendall(data)

    def say_no_more(self) -> None:
        """Close one direction."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close it, now."""
        self._sock.close()

    async def is_closed(self) -> None:
        """Wait until the client has closed it; nothing may come before."""
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.get_running_loop().sock_recv(self._sock, 1) == b""

    async def _more(self) -> None:
        received = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
        assert received, "the client closed the connection"
        self._read += received


class Door:
    """A socket that listens."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, 0), family=family)
        self._listening.setblocking(False)
        self._peers: list[Peer] = []
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def accept(self) -> Peer:
        """The next connection."""
        sock, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        self._peers.append(Peer(sock))
        return self._peers[-1]

    @property
    def nobody_came(self) -> bool:
        """No connection waits to be accepted."""
        try:
            self._listening.accept()[0].close()
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        """Listen no more; connections stand."""
        self._listening.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()
        for peer in self._peers:
            peer.close()


class Wire(asyncio.Transport):
    """A transport without a network: what is written stays here, what comes the test says."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.sent = b""
        self.unsent = 0
        """Bytes that have not left yet."""
        self.ended_at: float | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.ended_at is not None

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.end(None)

    def end(self, error: Exception | None) -> None:
        """End the connection, by an error or in good order."""
        if self.ended_at is None:
            loop = asyncio.get_running_loop()
            self.ended_at = loop.time()
            loop.call_soon(self._protocol.connection_lost, error)


class Line:
    """A connection on a wire, and what its pool would hear of it; requests leave at once."""

    def __init__(self, ready: Callable[[Connection], None] = Connection.send) -> None:
        self.idle: list[Connection] = []
        self.ended: list[Connection] = []
        self.connection = Connection(
            Place(False, "one.example", 80),
            ready=ready,
            idle=self.idle.append,
            ended=self.ended.append,
        )
        self.wire = Wire(self.connection)

    def begin(self) -> Self:
        """It stands."""
        self.connection.connection_made(self.wire)
        return self
