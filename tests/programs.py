"""Allim's programs as real processes, and what they say; for tests from the outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from scripts.short_lived import short_lived

from allim.composition.settings import settings_groups

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 120.0
"""Only met by a test that fails."""

Event = Mapping[str, Any]


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without any setting of Allim's, and with these."""
    ours = {name.upper() for group in settings_groups() for name in group.model_fields}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("ALLIM_")
    }
    # Programs run as they do for anybody: their modules are compiled once, not at every start.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, **variables}


@contextlib.contextmanager
def an_empty_directory() -> Iterator[Path]:
    """A short-lived directory that any user can reach, as most people's are.

    pytest's own are not, and then an embedded server of root's keeps its data elsewhere.
    """
    with tempfile.TemporaryDirectory(prefix="allim-program-", dir=short_lived()) as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@dataclass
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


async def allim(*arguments: str, cwd: Path, **variables: str) -> Ended:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "allim",
        *arguments,
        cwd=cwd,
        env=clean_environment(**variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def run_code(code: str, url: str, **variables: str) -> str:
    """Run Python code as users run theirs, beside this database; what it prints. Blocks."""
    paths = f"{ROOT}:{ROOT / 'src'}"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean_environment(DATABASE_URL=url, PYTHONPATH=paths, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@dataclass
class Program:
    """A running program: its log, its output, and its API if it has one."""

    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    url: str = ""
    events: list[Event] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    """What stood on stderr and was no event."""
    out: list[str] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _reading: list[asyncio.Task[None]] = field(default_factory=list)

    async def said(self, match: Callable[[Event], bool]) -> Event:
        """The first event that matches, now or later."""
        found: list[Event] = []

        def look() -> bool:
            found.extend(event for event in self.events if match(event))
            return bool(found) or self.process.returncode is not None

        await self._until(look)
        assert found, f"ended with {self.process.returncode}: {self.words} {self.events[-5:]}"
        return found[0]

    async def says(self, begin: str) -> Event:
        """The first event whose words begin so."""
        return await self.said(lambda event: str(event["event"]).startswith(begin))

    async def attempts(self, notification: str, count: int) -> list[Event]:
        """Wait until that many attempts of a notification were settled; their lines."""
        found: list[Event] = []

        def look() -> bool:
            found[:] = [e for e in self.events if e.get("notification_id") == notification]
            return len(found) >= count

        await self._until(look)
        return found

    async def prints(self, line: str) -> None:
        """Wait until a line stands on stdout."""
        await self._until(lambda: line in self.out)

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """Ask the API; status and body."""
        async with self.session.request(method, self.url + path, **more) as answer:
            body = await answer.text()
            return answer.status, json.loads(body) if body[:1] in "{[" else body

    async def create(self, **body: Any) -> str:
        """Post a notification; its id."""
        filled = {"source": "test", "type": "TEST", **body}
        status, created = await self.call("POST", "/notifications", json=filled)
        assert status == 202, created
        identity: str = created["id"]
        return identity

    async def show(self, identity: str) -> dict[str, Any]:
        """A notification as the API shows it."""
        status, body = await self.call("GET", f"/notifications/{identity}")
        assert status == 200, body
        shown: dict[str, Any] = body
        return shown

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        await self.ended()

    async def ended(self) -> int:
        """Wait for the end; the exit code."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            code = await self.process.wait()
            await asyncio.gather(*self._reading)
        return code

    async def _until(self, look: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(look)

    def _read(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._reading = [
            asyncio.create_task(self._take(self.process.stdout, self._printed)),
            asyncio.create_task(self._take(self.process.stderr, self._logged)),
        ]

    async def _take(self, stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
        async for line in stream:
            async with self._changed:
                take(line.decode().rstrip("\n"))
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()

    def _printed(self, line: str) -> None:
        self.out.append(line)

    def _logged(self, line: str) -> None:
        try:
            self.events.append(json.loads(line))
        except ValueError:
            self.words.append(line)


Start = Callable[..., Awaitable[Program]]


@asynccontextmanager
async def programs(cwd: Path) -> AsyncIterator[Start]:
    """Starts programs; whatever still runs at the end is stopped."""
    async with aiohttp.ClientSession() as session:
        running: list[Program] = []

        async def start(*arguments: str, until: str = "listening on", **variables: str) -> Program:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "allim",
                *arguments,
                cwd=cwd,
                env=clean_environment(**{"ALLIM_PORT": "0", **variables}),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            program = Program(process, session)
            running.append(program)
            program._read()
            said = await program.says(until)
            program.url = str(said["event"]).split(" ")[2] if until == "listening on" else ""
            return program

        try:
            yield start
        finally:
            for program in running:
                if program.process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        program.process.terminate()
                await program.ended()
