"""A mail server that takes everything: aiosmtpd where it is installed, else our own fake.

Prints its port and its name; answers each line on stdin with how many mails came over how many
connections.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from allim.bench.saying import say
from allim.testing.smtp import SmtpSink

Count = Callable[[], dict[str, int]]


@asynccontextmanager
async def _aiosmtpd() -> AsyncIterator[tuple[int, str, Count]]:
    from aiosmtpd.smtp import SMTP

    count = {"mails": 0, "connections": 0}

    class Handler:
        """Counts, and forgets."""

        async def handle_DATA(self, *_: Any) -> str:  # noqa: N802
            count["mails"] += 1
            return "250 2.0.0 queued"

    def session() -> Any:
        count["connections"] += 1
        return SMTP(Handler(), enable_SMTPUTF8=True)

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], "aiosmtpd", lambda: count


@asynccontextmanager
async def _own() -> AsyncIterator[tuple[int, str, Count]]:
    async with SmtpSink() as sink:
        yield (
            sink.port,
            "SmtpSink",
            lambda: {"mails": len(sink.mails), "connections": sink.connections},
        )


async def serve() -> None:
    """Serve until stdin ends."""
    try:
        import aiosmtpd  # noqa: F401
    except ModuleNotFoundError:
        opened = _own()
    else:
        opened = _aiosmtpd()
    async with opened as (port, name, count):
        say({"port": port, "server": name})
        while await asyncio.to_thread(sys.stdin.readline):
            say(count())


if __name__ == "__main__":
    asyncio.run(serve())
