"""Events of several orders at once, which leave in the order of each."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from allim.demo.speaking import PATIENCE_SECONDS, Say, call
from allim.demo.stage import Stage

TOPIC = "order-events"
ORDERS = ("A-1024", "A-1025", "A-1026")
STAGES = ("created", "paid", "packed", "shipped", "delivered")


async def tell_events(stage: Stage, number: int, say: Say) -> bool:
    """Publish, and read what the relay put out; whether each order's events are in order."""
    say(f"\n{number}. Three orders move at once: their events leave in order, each of its own")
    began = len(stage.printed)
    run = int(time.time())
    for done in STAGES:
        await call(
            stage,
            "POST",
            "/events",
            json=[
                {"topic": TOPIC, "key": f"{order}/{run}", "payload": {"order": order, "is": done}}
                for order in ORDERS
            ],
        )
    say(f"   POST /events   {len(STAGES)} times {len(ORDERS)} events, each call one transaction")
    published = await _all_published(stage, began)
    for order in ORDERS:
        say(f"   {order}: {' → '.join(published[order])}")
    good = all(published[order] == list(STAGES) for order in ORDERS)
    verdict = "as it should" if good else "NOT AS IT SHOULD"
    say("   (to the log, since KAFKA_BOOTSTRAP_SERVERS is not set)")
    say(f"   → every order in order, {verdict}")
    return good


async def _all_published(stage: Stage, began: int) -> Mapping[str, list[str]]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            published = _published(stage.printed[began:])
            if sum(map(len, published.values())) >= len(ORDERS) * len(STAGES):
                return published
            stage.arrived.clear()
            await stage.arrived.wait()


def _published(lines: list[str]) -> Mapping[str, list[str]]:
    """What each order went through, as the log publisher printed it."""
    stages: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("topic") == TOPIC:
            payload = json.loads(event["payload"])
            stages[payload["order"]].append(payload["is"])
    return stages
