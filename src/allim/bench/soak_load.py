"""What a soak's callers ask for, and the world outside that counts what arrives."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

TENANT = 7
TEXT_EVERY, FOLLOWED_EVERY = 20, 10
_REFUSED, _CUT = 0.02, 0.01


class Witness:
    """The world outside: it counts what it took, and now and then refuses or hangs up."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.url = ""
        self.took: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen until the block ends."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        await request.read()
        fate = self._chance.random()
        if fate < _REFUSED:
            return web.Response(status=503)
        self.took[self.url + request.path] += 1
        if fate < _REFUSED + _CUT and request.transport is not None:
            # Taken, but nobody hears of it.
            request.transport.abort()
        return web.Response(text="ok")


@dataclass
class Callers:
    """Callers who post until they are answered, each with an idempotency key."""

    urls: Sequence[str]
    sink: str
    chance: random.Random
    accepted: dict[str, str] = field(default_factory=dict)
    """Notification ids by idempotency key."""
    tries: int = 0
    _next: int = 0

    async def post_for(self, seconds: float, *, callers: int, rate: float) -> None:
        """Post about `rate` notifications a second; what was begun is brought to its end."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout) as session:

            async def call() -> None:
                while loop.time() < until:
                    self._next += 1
                    await self._post(session, self._next)
                    await asyncio.sleep(self.chance.uniform(0, 2) * callers / rate)

            await asyncio.gather(*(call() for _ in range(callers)))

    async def _post(self, session: aiohttp.ClientSession, number: int) -> None:
        key = f"soak-{number}"
        body = self.body(number)
        while True:
            self.tries += 1
            url = self.chance.choice(self.urls)
            try:
                async with session.post(
                    f"{url}/notifications", json=body, headers={"Idempotency-Key": key}
                ) as answer:
                    found = await answer.json(content_type=None)
                    if answer.status == 202:
                        self.accepted[key] = found["id"]
                        return
                    # Whoever had the key was killed, and the database does not know it yet.
                    in_flight = answer.status == 409 and found["code"] == "in_flight"
                    if answer.status < 500 and not in_flight:
                        raise RuntimeError(f"{answer.status}: {found}")
            except (aiohttp.ClientError, TimeoutError, ValueError):
                pass  # Nobody knows what became of it: that is what the key is for.
            await asyncio.sleep(0.1)

    def body(self, number: int) -> dict[str, Any]:
        """What is asked for: webhooks, some with another to follow, and now and then a text."""
        if number % TEXT_EVERY == 0:
            delivery: dict[str, Any] = {"channel": "SMS", "recipient": f"0101{number:07}"}
            return {
                "source": "soak",
                "type": "TEXT",
                "message": "내일 14:30 예약입니다.",
                "tenant_id": TENANT,
                "deliveries": [delivery],
            }
        delivery = {"channel": "WEBHOOK", "recipient": f"{self.sink}/{number}"}
        if number % FOLLOWED_EVERY == 5:
            delivery["then"] = [{"channel": "WEBHOOK", "recipient": f"{self.sink}/{number}/then"}]
        return {"source": "soak", "type": "HOOK", "message": "soak", "deliveries": [delivery]}

    def expected(self) -> int:
        """How many deliveries must have come of what was accepted."""
        numbers = [int(key.removeprefix("soak-")) for key in self.accepted]
        return len(numbers) + sum(number % FOLLOWED_EVERY == 5 for number in numbers)
