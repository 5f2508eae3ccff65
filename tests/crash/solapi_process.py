"""A relay of texts in a process of its own, that may kill itself at a named moment.

python -m tests.crash.solapi_process '{"database": …, "solapi": {…}, "kill_at": "after send"}'

It is the real relay on the real box and the real SMS channel; only the moments of death are
put around its calls here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from allim.base.settings import Environment
from allim.channels import sms
from allim.channels.channel import HttpAnswer, Message
from allim.channels.http.client import HttpClient
from allim.channels.registry import make_http, make_services
from allim.database.pool import Database
from allim.relay.lane import Lane
from allim.relay.observer import Silence
from allim.relay.relay import Relay
from allim.relay.retry import RetryPolicy
from allim.relay.wake import WakeSignal
from allim.relay.work import Work
from tests.crash.dying import Death, say
from tests.crash.relay_process import LIMITS, SHORT_LEASE, MortalBox, MortalPolicy, Telling

SMS = "SMS"
STEPS = {
    ("POST", "groups"): "create",
    ("PUT", "messages"): "add",
    ("POST", "send"): "send",
    ("DELETE", "group"): "delete",
    ("GET", "group"): "ask",
    ("GET", "messages"): "list",
}


class MortalTextBox(MortalBox):
    """Also around the storing of a group's id."""

    def __init__(self, database: Database, death: Death) -> None:
        super().__init__(database, death)
        self._last_breath = death

    async def record_provider_id(self, works: Sequence[Work[Message]], provider_id: str) -> bool:
        self._last_breath.at("before record")
        ours = await super().record_provider_id(works, provider_id)
        self._last_breath.at("after record")
        return ours


class MortalHttp(HttpClient):
    """Around every call."""

    def __init__(self, http: HttpClient, death: Death) -> None:
        self._http = http
        self._death = death

    async def request(self, method: str, url: str, **more: Any) -> HttpAnswer:
        last = url.partition("?")[0].rsplit("/", 1)[-1]
        known = last if last in ("groups", "messages", "send") else "group"
        step = STEPS[method, known]
        self._death.at(f"before {step}")
        answer = await self._http.request(method, url, **more)
        self._death.at(f"after {step}")
        return answer

    async def close(self) -> None:
        await self._http.close()


async def run(
    database_url: str,
    solapi: Mapping[str, str],
    death: Death,
    observer: Silence,
    stop: asyncio.Event,
    lease: float,
) -> None:
    """Run a relay of texts until it is told to stop."""
    environment = Environment({**solapi, "SMS_TIMEOUT_SECONDS": str(lease * 0.6)})
    http = MortalHttp(make_http(environment), death)
    channel = sms.make(environment, make_services(http))
    channel.limits = replace(
        channel.limits,
        batch=4,
        concurrency=4,
        call_timeout=lease * 0.8,
        retry=RetryPolicy(base=0.1, maximum=1.0, attempts=20),
    )
    async with Database(database_url, max_size=4) as database:
        relay = Relay(
            MortalTextBox(database, death),
            [Lane(SMS, channel, MortalPolicy(death))],
            wake=WakeSignal(),
            limits=replace(LIMITS, lease=lease),
            observer=observer,
        )
        running = asyncio.create_task(relay.run())
        await stop.wait()
        relay.stop()
        await running
    await http.close()


async def main(
    database: str,
    solapi: Mapping[str, str],
    kill_at: str | None = None,
    kill_on: int = 1,
    lease: float = SHORT_LEASE,
) -> None:
    """Run until SIGTERM."""
    # stdout is for what is said; structlog would print there.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    say(running=os.getpid())
    await run(database, solapi, Death(kill_at, kill_on), Telling(), stop, lease)


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
