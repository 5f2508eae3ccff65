"""Debezium's connector as its page sets it up, in a process of its own, and what it publishes."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from allim.testing.maven import fetch_jars
from tests.docs.test_blocks import blocks

PATIENCE_SECONDS = 120.0
VERSION = "3.6.1.Final"
ARTIFACTS = (
    f"io.debezium:debezium-embedded:{VERSION}",
    f"io.debezium:debezium-connector-postgres:{VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",
)
PROGRAM = Path(__file__).with_name("Connector.java")
LONGEST_LINE = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """A record as the broker gets it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes | None]

    @classmethod
    def of(cls, line: bytes) -> Record:
        said = json.loads(line)
        headers = {name: _bytes(value) for name, value in said["headers"]}
        assert len(headers) == len(said["headers"]), "each header once"
        return cls(said["topic"], _bytes(said["key"]), _bytes(said["value"]), headers)

    @property
    def event_id(self) -> str | None:
        """What a consumer drops repeats by."""
        found = self.headers.get("eventId")
        return None if found is None else found.decode()


@dataclass
class Connector:
    """A running connector."""

    process: asyncio.subprocess.Process
    log: Path
    records: list[Record] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, holds: Callable[[list[Record]], bool]) -> list[Record]:
        """Wait until something holds of all that it has published."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(
                lambda: holds(self.records) or self.process.returncode is not None
            )
        assert holds(self.records), f"it ended: {self.log.read_text()[-3000:]}"
        return self.records

    async def publishes(self, event_id: object) -> list[Record]:
        """Wait for an event; what came until then."""
        return await self.until(lambda came: any(each.event_id == str(event_id) for each in came))

    async def read(self) -> None:
        """Take what it prints, to the end."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._changed:
                self.records.append(Record.of(line))
                self._changed.notify_all()
        await self.process.wait()
        async with self._changed:
            self._changed.notify_all()


def settings_of_the_page() -> dict[str, str]:
    """What the page tells Kafka Connect."""
    (config,) = blocks("docs/how-to/debezium.md", "json")
    settings: dict[str, str] = json.loads(config)
    return settings


@asynccontextmanager
async def connector(settings: Mapping[str, str], folder: Path) -> AsyncIterator[Connector]:
    """A connector with these settings, stopped at the end as Kafka Connect stops one."""
    jars = await asyncio.to_thread(fetch_jars, f"debezium-{VERSION}", ARTIFACTS)
    file = folder / "connector.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    log = folder / "connector.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            "java",
            *("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            *("-cp", f"{jars}/*", str(PROGRAM), str(file)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LONGEST_LINE,
        )
    running = Connector(process, log)
    reading = asyncio.create_task(running.read())
    try:
        yield running
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await reading
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _bytes(value: Any) -> bytes | None:
    return None if value is None else b64decode(value)
