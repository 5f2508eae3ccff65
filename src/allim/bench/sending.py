"""Webhooks to a local server that answers at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import aiohttp
import uvloop

from allim.bench.draining import fill, settled_per_second, wait_until_settled
from allim.bench.figures import Figure, at_least, plain
from allim.bench.stage import Stage, ask

CASE = "webhooks"


def run(stage: Stage, *, deliveries: int = 20_000) -> Iterator[Figure]:
    """A backlog of signed WEBHOOK deliveries to one sink, by one relay process."""
    with stage.process("allim.bench.sink") as sink:
        assert sink.stdout is not None
        port = int(sink.stdout.readline())
        fill(stage, deliveries, "WEBHOOK", f"http://127.0.0.1:{port}/hook")
        secret = "whsec_" + "QUxMSU1iZW5jaG1hcmtzZWNyZXRrZXkh"
        with stage.process("allim", "relay", "--channel", "WEBHOOK", WEBHOOK_SECRETS=secret):
            wait_until_settled(stage, deliveries)
        received = ask(sink)["count"]
        bare_rate = uvloop.run(_bare_loop(f"http://127.0.0.1:{port}/hook", deliveries // 4))
    if received != deliveries:
        raise RuntimeError(f"{deliveries} webhooks were settled, but {received} received")
    relay_rate = settled_per_second(stage)
    yield at_least(CASE, "signed webhooks by one relay", relay_rate, "sends/s", 5000)
    yield plain(CASE, "bare client loop: no database, no signing", bare_rate, "sends/s")
    yield plain(CASE, "relay to bare client loop", relay_rate / bare_rate, "×")
    retried = stage.fetch("SELECT count(*) FROM delivery WHERE attempts > 1")[0][0]
    yield plain(CASE, "sent in a later attempt", retried, "deliveries")


async def _bare_loop(url: str, count: int, connections: int = 16) -> float:
    """Posts a second by the HTTP client alone, which is what a relay cannot beat."""
    headers = {"Content-Type": "application/json"}

    async def post(session: aiohttp.ClientSession, times: int) -> None:
        for _ in range(times):
            async with session.post(url, data=b"{}", headers=headers) as response:
                await response.read()

    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        await post(session, connections)
        began = time.perf_counter()
        await asyncio.gather(*(post(session, count // connections) for _ in range(connections)))
        return count / (time.perf_counter() - began)
