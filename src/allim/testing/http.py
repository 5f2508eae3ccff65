"""A local HTTP server that answers as it is told, for testing whatever calls out.

async with HttpSink() as sink:
    sink.answer(Answer.of(429, headers={"Retry-After": "7"}), Answer.of(200, "ok"))
    ... call sink.url ...
    assert sink.requests[0].json == {"text": "hello"}
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, Self

from allim.testing.connections import Connections


class Then(Enum):
    """What the server does with the connection after its answer."""

    KEEP = "keep"
    CLOSE = "close"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes to answer with, and what comes after them."""

    wire: bytes
    then: Then = Then.KEEP

    @classmethod
    def of(
        cls, status: int = 200, body: str | bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A complete answer."""
        content = body.encode() if isinstance(body, str) else body
        lines = {"Content-Length": str(len(content)), **(headers or {})}
        phrase = HTTPStatus(status).phrase if status in list(HTTPStatus) else "Unknown"
        head = f"HTTP/1.1 {status} {phrase}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return cls(head.encode() + b"\r\n" + content)

    @property
    def status(self) -> int:
        """The status that it answers with; 0 where it breaks off before one."""
        head = self.wire.split(b" ", 2)
        return int(head[1]) if len(head) > 1 and head[1].isdigit() else 0

    @classmethod
    def cut(cls, wire: bytes = b"") -> Answer:
        """These bytes, then the connection breaks."""
        return cls(wire, Then.CLOSE)

    @classmethod
    def hang(cls, wire: bytes = b"") -> Answer:
        """These bytes, then nothing more."""
        return cls(wire, Then.HANG)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; header names are in small letters."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class HttpSink:
    """The server. The last of its answers is given for ever; without any it is 200 ``ok``.

    With `tls`, a server's context, it is one of https://.
    """

    def __init__(self, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._tls = tls
        self.requests: list[Request] = []
        self.port = 0
        self._answers: deque[Answer] = deque([Answer.of(200, "ok")])
        self._server: asyncio.Server | None = None
        self._connections = Connections()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``, without a path."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    def answer(self, *answers: Answer) -> None:
        """Answer with these from now on, one request each, the last one ever after."""
        self._answers = deque(answers)

    def reply(self, request: Request) -> Answer:
        """What a request is answered with; a fake of some service says it in its own way."""
        return self._answers.popleft() if len(self._answers) > 1 else self._answers[0]

    async def hold(self, request: Request) -> None:
        """Wait here before a request is answered; a fake of some service may take its time."""

    async def received(self, count: int) -> list[Request]:
        """Wait until that many requests have come; all of them."""
        await self._connections.until(lambda: len(self.requests) >= count)
        return self.requests

    async def all_closed(self) -> None:
        """Wait until every connection is closed."""
        await self._connections.until(lambda: not self._connections)

    async def stop(self) -> None:
        """Refuse connections from now on, and break those that stand."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._connections.cut_all()

    async def start(self) -> None:
        """Listen, on the same port again where it was stopped."""
        self._server = await asyncio.start_server(self._serve, self._host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def talk(number: int) -> None:
            while await self._exchange(reader, writer, number):
                pass

        await self._connections.serve(writer, talk)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        """One request and its answer; whether the connection goes on."""
        request = await _read_request(reader, number)
        answer = self.reply(request)
        self.requests.append(request)
        self._connections.changed()
        await self.hold(request)
        writer.write(answer.wire)
        await writer.drain()
        if answer.then is Then.HANG:
            while await reader.read(65536):
                pass
        if answer.then is Then.CLOSE:
            # Closed in good order, so that what was written arrives.
            if writer.can_write_eof():
                writer.write_eof()
                await reader.read()
            else:
                writer.close()
                await writer.wait_closed()
        return answer.then is Then.KEEP


async def _read_request(reader: asyncio.StreamReader, number: int) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body, number)
