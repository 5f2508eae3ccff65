"""A webhook receiver that answers at once and remembers when each request came.

Runs as a process of its own (``python -m allim.bench.sink``): prints its port, then, for every
line on stdin, one JSON line ``{"count": …, "arrivals": {delivery id: perf_counter seconds}}``.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import cast

import uvloop

from allim.bench.saying import say

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"webhook-id: *(\S+)", re.IGNORECASE)


class Receiver(asyncio.Protocol):
    """One connection."""

    def __init__(self, arrivals: dict[str, float]) -> None:
        self._arrivals = arrivals
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request in the buffer."""
        assert self._transport is not None
        self._buffer += data
        while (head_end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:head_end]
            length = _LENGTH.search(head)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                return
            self._buffer = self._buffer[end:]
            if identity := _ID.search(head):
                self._arrivals[identity[1].decode()] = time.perf_counter()
            self._transport.write(ANSWER)


async def serve() -> None:
    """Serve until stdin ends."""
    arrivals: dict[str, float] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Receiver(arrivals), "127.0.0.1", 0, backlog=1024)
    say(server.sockets[0].getsockname()[1])
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        answer: dict[str, object] = {"count": len(arrivals)}
        if line.strip() == "arrivals":
            answer["arrivals"] = arrivals
        say(answer)


if __name__ == "__main__":
    uvloop.run(serve())
