"""A load generator: keep-alive connections that post one body over and over.

Runs as a process of its own (``python -m allim.bench.load URL CONNECTIONS SECONDS < body``) and
prints one JSON line. It speaks just enough HTTP/1.1 to cost as little as it can.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop


class Poster(asyncio.Protocol):
    """One connection: posts, waits for the answer, posts again."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._began = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies: list[float] = []
        self.refused: dict[str, int] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._post()

    def data_received(self, data: bytes) -> None:
        """Take in an answer; send the next request once it is whole."""
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        length_at = head.find(b"content-length:")
        length_end = head.find(b"\r\n", length_at)
        length = int(head[length_at + 15 : length_end if length_end > 0 else None])
        if len(self._buffer) < head_end + 4 + length:
            return
        status = head[9:12].decode()
        if status[0] == "2":
            self.latencies.append(time.perf_counter() - self._began)
        else:
            self.refused[status] = self.refused.get(status, 0) + 1
        self._buffer = b""
        self._post()

    def connection_lost(self, _error: Exception | None) -> None:
        """End, whatever the reason."""
        if not self.done.done():
            self.done.set_result(None)

    def _post(self) -> None:
        assert self._transport is not None
        self._began = time.perf_counter()
        if self._began >= self._until:
            self._transport.close()
            return
        self._transport.write(self._request)


async def post_for(url: str, body: bytes, connections: int, seconds: float) -> dict[str, object]:
    """Post `body` to `url` over `connections` connections for `seconds`."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    request = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.hostname}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    posters = []
    for _ in range(connections):
        _, poster = await loop.create_connection(
            lambda: Poster(request, began + seconds), parts.hostname, parts.port
        )
        posters.append(poster)
    await asyncio.gather(*(poster.done for poster in posters))
    took = time.perf_counter() - began
    latencies = sorted(latency for poster in posters for latency in poster.latencies)
    refused: dict[str, int] = {}
    for poster in posters:
        for status, count in poster.refused.items():
            refused[status] = refused.get(status, 0) + count
    return {
        "requests": len(latencies),
        "per_second": len(latencies) / took,
        "p50": latencies[len(latencies) // 2] if latencies else None,
        "p99": latencies[int(len(latencies) * 0.99)] if latencies else None,
        "mean": sum(latencies) / len(latencies) if latencies else None,
        "refused": refused,
    }


if __name__ == "__main__":
    arguments = sys.argv[1:]
    answer = uvloop.run(
        post_for(arguments[0], sys.stdin.buffer.read(), int(arguments[1]), float(arguments[2]))
    )
    sys.stdout.write(json.dumps(answer) + "\n")
