"""Kept connections to a mail server, and a mail whose time ends while one is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from allim.channels.smtp import PROBE_AFTER, SmtpPool
from allim.channels.smtp_server import SmtpServer


class SilentServer:
    """Answers until it is asked NOOP or RSET; that it only notes."""

    def __init__(self) -> None:
        self.refuses = False
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen; the URL."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        try:
            yield f"smtp://{host}:{port}"
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        while line := await reader.readline():
            word = line[:4].upper()
            if word in (b"NOOP", b"RSET"):
                self.asked.set()
            elif word == b"RCPT" and self.refuses:
                writer.write(b"550 5.1.1 no\r\n")
            elif word == b"DATA":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 taken\r\n")
            else:
                writer.write(b"250 fine\r\n")
        self.gone.set()
        writer.close()


@pytest.mark.parametrize("question", ["noop", "rset"])
async def test_a_connection_that_is_looked_at_when_the_mails_time_ends_is_closed(
    question: str,
) -> None:
    server = SilentServer()
    async with server.listening() as url, asyncio.timeout(30):
        pool = SmtpPool(SmtpServer.of_url(url), command_timeout=20.0)

        async def send() -> None:
            await pool.send(
                sender="a@example.com",
                recipient="b@example.com",
                content=b"x\r\n",
                smtputf8=False,
                timeout=20.0,
            )

        if question == "noop":
            await send()
            pool._idle[0].idle_since -= PROBE_AFTER + 1.0
        server.refuses = question == "rset"
        sending = asyncio.create_task(send())
        await server.asked.wait()
        sending.cancel()
        await asyncio.wait([sending])
        await server.gone.wait()
        await pool.close()
