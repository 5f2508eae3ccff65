"""The real Alertmanager, started for a test."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from tests.programs import PATIENCE_SECONDS
from tests.requirements import needs_program


@dataclass
class Alertmanager:
    """A running one."""

    url: str
    session: aiohttp.ClientSession

    async def post(self, *alerts: dict[str, Any]) -> None:
        """Hand in alerts as Prometheus does."""
        async with self.session.post(f"{self.url}/api/v2/alerts", json=list(alerts)) as answer:
            assert answer.status == 200, await answer.text()

    async def count(self, metric: str) -> float:
        """The sum of one of its counters, for webhooks."""
        async with self.session.get(f"{self.url}/metrics") as answer:
            text = await answer.text()
        found = re.findall(
            rf'^{metric}{{[^}}]*integration="webhook"[^}}]*}} (\S+)$', text, re.MULTILINE
        )
        return sum(map(float, found))

    async def counts(self, metric: str, more: int) -> None:
        """Wait until a counter has grown by so much."""
        before = await self.count(metric)
        await until(lambda: self._reached(metric, before + more), metric)

    async def _reached(self, metric: str, value: float) -> bool:
        return await self.count(metric) >= value

    async def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            async with self.session.get(f"{self.url}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def now() -> str:
    """This moment, as its API wants it."""
    return datetime.now(UTC).isoformat()


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until something is so."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


@asynccontextmanager
async def alertmanager(config: str, place: Path) -> AsyncIterator[Alertmanager]:
    """Run one with this configuration until the block ends."""
    program = needs_program("prometheus-alertmanager", "alertmanager")
    file = place / "alertmanager.yml"
    file.write_text(config)
    address = f"127.0.0.1:{free_port()}"
    with (place / "alertmanager.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={file}",
            f"--storage.path={place / 'alertmanager'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as session:
            running = Alertmanager(f"http://{address}", session)
            await until(running.is_ready, "Alertmanager to be ready")
            yield running
    finally:
        process.terminate()
        await process.wait()
