"""The processes of a soak: they are killed and started again all the time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from allim.bench.stage import free_port, wait_for
from allim.database.embedded import EmbeddedServer
from allim.database.embedded.postmaster import Postmaster

GRACE_SECONDS = 40.0
BEGIN_SECONDS = 120.0
_GOOD_ENDS = (0, -signal.SIGTERM, 128 + signal.SIGTERM)
_KILLED_SHARE = 0.6
"""Of the processes that go: by kill -9. The others get a SIGTERM."""


@dataclass
class Member:
    """One process of the fleet, and the one after it, and the next."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    process: asyncio.subprocess.Process | None = None
    bad_ends: list[str] = field(default_factory=list)
    """What was said last by those that were told to end and did not end well."""

    @property
    def has_ended(self) -> bool:
        """Whether it ended, and nobody told it to."""
        return self.process is not None and self.process.returncode is not None

    async def start(self) -> None:
        """Start one."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "allim",
                *self.command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    async def end(self, number: signal.Signals) -> None:
        """Send it a signal and wait for its end; one that does not heed it is killed."""
        process = self.process
        assert process is not None
        by_itself = self.has_ended
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            code = await process.wait()
        # One that has not begun yet ends by it: it has nothing in hand then.
        if number == signal.SIGTERM and not by_itself and code not in _GOOD_ENDS:
            self.bad_ends.append(f"{self.name} ended with {code}: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of its log."""
        lines = (self.folder / f"{self.name}.log").read_text(errors="replace").splitlines()
        return lines[-1][:300] if lines else "(nothing)"


class Fleet:
    """APIs and relays behind one pooler, and the database that they share."""

    def __init__(
        self, environment: Mapping[str, str], folder: Path, home: Path, *, apis: int, relays: int
    ) -> None:
        self._home = home
        self.urls: list[str] = []
        self.members: list[Member] = []
        self.done: Counter[str] = Counter()
        self.words: list[str] = []
        for at in range(apis):
            port = free_port()
            self.urls.append(f"http://127.0.0.1:{port}")
            own = {**environment, "ALLIM_PORT": str(port)}
            self.members.append(Member(f"api-{at}", ["api"], own, folder))
        command = ["relay", "--channel", "WEBHOOK", "--channel", "SMS"]
        for at in range(relays):
            self.members.append(Member(f"relay-{at}", command, environment, folder))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all of them until the block ends, which begins when every API answers."""
        try:
            for member in self.members:
                await member.start()
            await asyncio.to_thread(self._wait_for_apis)
            yield
        finally:
            await asyncio.gather(
                *(m.end(signal.SIGTERM) for m in self.members if m.process is not None)
            )

    def _wait_for_apis(self) -> None:
        until = time.monotonic() + BEGIN_SECONDS
        for url in self.urls:
            while True:
                try:
                    wait_for(f"{url}/health/ready", 1.0)
                    break
                except TimeoutError:
                    ended = [m.last_words() for m in self.members if m.has_ended]
                    if ended or time.monotonic() > until:
                        raise RuntimeError(f"not all programs run: {ended}") from None

    async def suffer(self, seconds: float, every: float, chance: random.Random) -> None:
        """End one process after the other for so long; the database goes once, half way."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        restarted = False
        # An end that took long may have gone past the half and the whole of a short time.
        while (passed := loop.time() - began) < seconds or not restarted:
            if not restarted and passed >= seconds / 2:
                restarted = True
                await asyncio.to_thread(restart_database, self._home)
                self.done["database restarts"] += 1
                continue
            await self.revive()
            member = chance.choice(self.members)
            number = signal.SIGKILL if chance.random() < _KILLED_SHARE else signal.SIGTERM
            await member.end(number)
            self.done[f"{member.command[0]} {number.name}"] += 1
            await member.start()
            # Never two at the same beat, so that no rhythm of ours is met by chance alone.
            await asyncio.sleep(chance.uniform(0.5, 1.5) * every)

    async def revive(self) -> None:
        """Start again what has ended by itself, as whoever supervises processes does."""
        for member in self.members:
            if member.has_ended:
                self.done[f"{member.command[0]} ended by itself"] += 1
                self.words.append(f"{member.name} ended by itself: {member.last_words()}")
                await member.start()

    def bad_ends(self) -> Sequence[str]:
        """Those that did not end in good order when they were asked to."""
        return [words for member in self.members for words in member.bad_ends]


def restart_database(home: Path) -> None:
    """«Immediate shutdown», as a crash is, with recovery at the next start. Blocks."""
    with EmbeddedServer.open(home) as server:
        postmaster = Postmaster.of(server.data)
        if postmaster is not None:
            os.kill(postmaster.pid, signal.SIGQUIT)
            while postmaster.is_running():
                os.sched_yield()
        EmbeddedServer.open(home).close(leave_running=True)
