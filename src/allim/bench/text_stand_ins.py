"""A Solapi that answers in 50 ms and an SQS that answers in 6, for the case `text`.

Runs as a process of its own (``python -m allim.bench.text_stand_ins``): prints the settings that
lead to both as one JSON line. Every line on stdin is a number of jobs to be put on the queue, and
is answered by one JSON line that tells what was seen so far. The queue is no test of SQS: it
forgets what it has handed out.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import uvloop
from aiohttp import web

from allim.bench.saying import say
from allim.testing.solapi import FakeSolapi

SOLAPI_SECONDS = 0.05
SQS_SECONDS = 0.006
_JSON = "application/x-amz-json-1.0"


@dataclass
class Queue:
    """One queue, as far as a consumer asks of it."""

    url: str = ""
    waiting: deque[str] = field(default_factory=deque)
    receives: list[float] = field(default_factory=list)
    filled: asyncio.Event = field(default_factory=asyncio.Event)

    def fill(self, count: int) -> None:
        """Put jobs on it, each to a number of its own."""
        for number in range(count):
            job = {"to": f"0107{number:07}", "text": f"예약 안내 {number}", "job_id": uuid4().hex}
            self.waiting.append(json.dumps(job))
        if self.waiting:
            self.filled.set()

    async def answer(self, request: web.Request) -> web.Response:
        """One call."""
        await asyncio.sleep(SQS_SECONDS)
        asked = await request.json()
        call = request.headers["X-Amz-Target"].rpartition(".")[2]
        return web.Response(text=json.dumps(await self._answer(call, asked)), content_type=_JSON)

    async def _answer(self, call: str, asked: Any) -> dict[str, Any]:
        if call == "GetQueueUrl":
            return {"QueueUrl": self.url}
        if call == "GetQueueAttributes":
            return {"Attributes": {}}
        if call == "ReceiveMessage":
            return {"Messages": await self._receive(asked)}
        return {"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]], "Failed": []}

    async def _receive(self, asked: Any) -> list[dict[str, Any]]:
        self.receives.append(time.monotonic())
        if not self.waiting:
            self.filled.clear()
            try:
                async with asyncio.timeout(asked.get("WaitTimeSeconds", 0)):
                    await self.filled.wait()
            except TimeoutError:
                return []
        count = min(asked.get("MaxNumberOfMessages", 1), len(self.waiting))
        return [
            {
                "MessageId": uuid4().hex,
                "ReceiptHandle": uuid4().hex,
                "Body": self.waiting.popleft(),
                "Attributes": {"ApproximateReceiveCount": "1"},
            }
            for _ in range(count)
        ]


async def serve() -> None:
    """Serve until stdin ends."""
    queue = Queue()
    app = web.Application()
    app.router.add_post("/", queue.answer)
    app.router.add_post("/{rest:.*}", queue.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    queue.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with FakeSolapi() as solapi:
        solapi.delay = SOLAPI_SECONDS
        say(
            {
                **solapi.environment(),
                "AWS_ENDPOINT_URL": queue.url,
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
            }
        )
        loop = asyncio.get_running_loop()
        while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            queue.fill(int(line))
            times = solapi.times_out()
            say(
                {
                    "sent": len(solapi.texts),
                    "doubled": sum(count > 1 for count in times.values()),
                    "groups": len(solapi.groups),
                    "receives": queue.receives,
                }
            )
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(serve())
