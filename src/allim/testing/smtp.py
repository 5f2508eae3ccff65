"""A local SMTP server that answers as it is told, for testing what sends mail.

    async with SmtpSink() as sink:
        sink.reply(Step.RECIPIENT, "550 5.1.1 no such user")
        ... send through sink.url ...

It speaks enough SMTP for a client that pipelines nothing: EHLO, AUTH PLAIN, MAIL, RCPT, DATA,
RSET, NOOP, QUIT. To test TLS use a whole server (`aiosmtpd`).
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from enum import StrEnum
from typing import Self

from allim.testing.connections import Connections


class Step(StrEnum):
    """What can be answered otherwise; all but the greeting and the content are commands."""

    GREETING = "greeting"
    EHLO = "EHLO"
    LOGIN = "AUTH"
    SENDER = "MAIL"
    RECIPIENT = "RCPT"
    DATA = "DATA"
    CONTENT = "content"


HANG = "hang"
"""Instead of a reply: nothing at all."""
CUT = "cut"
"""Instead of a reply: the connection breaks."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as it was taken; `sender` and `recipient` are those of the envelope."""

    sender: str
    recipient: str
    content: bytes
    connection: int

    @property
    def message(self) -> EmailMessage:
        """The content, parsed."""
        return message_from_bytes(self.content, policy=SMTP_POLICY)

    @property
    def text(self) -> str:
        """The text part."""
        part = self.message.get_body(("plain",))
        return str(part.get_content()).replace("\r\n", "\n") if part else ""

    @property
    def html(self) -> str:
        """The HTML part."""
        part = self.message.get_body(("html",))
        return str(part.get_content()).replace("\r\n", "\n") if part else ""


class SmtpSink:
    """The server. `login` is the user name and the password it wants, if any."""

    def __init__(self, *, login: tuple[str, str] | None = None, smtputf8: bool = False) -> None:
        self.mails: list[Mail] = []
        self.port = 0
        self.replies: dict[Step, str] = {}
        self._once: set[Step] = set()
        self._login = login
        self.smtputf8 = smtputf8
        self._server: asyncio.Server | None = None
        self._connections = Connections()

    @property
    def url(self) -> str:
        """An SMTP_URL for it, with its user name and password."""
        login = f"{self._login[0]}:{self._login[1]}@" if self._login else ""
        return f"smtp://{login}127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections there have been."""
        return self._connections.opened

    def reply(self, step: Step, reply: str | None) -> None:
        """Answer a step so from now on (a reply, HANG or CUT); None: as usual again."""
        if reply is None:
            self.replies.pop(step, None)
        else:
            self.replies[step] = reply

    def reply_once(self, step: Step, reply: str) -> None:
        """Answer a step so the next time, then as usual."""
        self.replies[step] = reply
        self._once.add(step)

    async def cut_all(self) -> None:
        """Break every connection that stands."""
        await self._connections.cut_all()

    async def all_closed(self) -> None:
        """Wait until every connection is closed."""
        await self._connections.until(lambda: not self._connections)

    async def start(self) -> None:
        """Listen, on the same port again where it was stopped."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=64 * 1024 * 1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections from now on, and break those that stand."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut_all()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def talk(number: int) -> None:
            await _Session(self, reader, writer, number).run()

        await self._connections.serve(writer, talk)

    def next_reply(self, step: Step) -> str | None:
        """The reply that a step is given instead of the usual one, if any."""
        reply = self.replies.get(step)
        if step in self._once:
            self._once.discard(step)
            self.replies.pop(step, None)
        return reply

    def extensions(self) -> list[str]:
        """What EHLO tells of."""
        lines = ["sink.test", "SIZE 33554432"]
        if self.smtputf8:
            lines.append("SMTPUTF8")
        if self._login:
            lines.append("AUTH PLAIN")
        return lines

    def lets_in(self, credentials: str) -> bool:
        """Whether an AUTH PLAIN answer holds the user name and the password."""
        if self._login is None:
            return False
        return base64.b64decode(credentials) == "\0{}\0{}".format(*self._login).encode()


class _Session:
    """One connection: reads commands and answers them."""

    def __init__(
        self,
        sink: SmtpSink,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
    ) -> None:
        self._sink = sink
        self._reader = reader
        self._writer = writer
        self._number = number
        self._sender = ""
        self._recipient = ""

    async def run(self) -> None:
        await self._answer(Step.GREETING, "220 sink.test ESMTP")
        while True:
            line = (await self._reader.readuntil(b"\r\n")).decode("utf-8").rstrip("\r\n")
            command, _, rest = line.partition(" ")
            match command.upper():
                case "EHLO":
                    lines = self._sink.extensions()
                    marked = [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]
                    await self._answer(Step.EHLO, "\r\n".join(marked))
                case "AUTH":
                    let_in = self._sink.lets_in(rest.removeprefix("PLAIN "))
                    reply = "235 2.7.0 welcome" if let_in else "535 5.7.8 bad credentials"
                    await self._answer(Step.LOGIN, reply)
                case "MAIL":
                    self._sender = _address(rest)
                    await self._answer(Step.SENDER, "250 2.1.0 OK")
                case "RCPT":
                    self._recipient = _address(rest)
                    await self._answer(Step.RECIPIENT, "250 2.1.5 OK")
                case "DATA":
                    if await self._answer(Step.DATA, "354 go ahead"):
                        await self._take_content()
                case "QUIT":
                    await self._write("221 2.0.0 bye")
                    return
                case _:
                    await self._write("250 2.0.0 OK")

    async def _take_content(self) -> None:
        content = await self._reader.readuntil(b"\r\n.\r\n")
        content = content.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        if await self._answer(Step.CONTENT, "250 2.0.0 queued"):
            self._sink.mails.append(Mail(self._sender, self._recipient, content, self._number))

    async def _answer(self, step: Step, usual: str) -> bool:
        """Answer a step; whether it was the usual answer."""
        reply = self._sink.next_reply(step)
        if reply == HANG:
            await self._reader.read()
            raise ConnectionResetError
        if reply == CUT:
            raise ConnectionResetError
        await self._write(usual if reply is None else reply)
        return reply is None

    async def _write(self, reply: str) -> None:
        self._writer.write(reply.encode("latin-1") + b"\r\n")
        await self._writer.drain()


def _address(parameters: str) -> str:
    return parameters.partition("<")[2].partition(">")[0]
