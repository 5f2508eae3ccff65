"""The demo's processes: an `allim up` of its own, a server like Slack's, and one that fails."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from allim.base.errors import AllimError
from allim.composition.settings import settings_groups
from allim.testing.http import HttpSink
from allim.testing.sheets import FakeAppsScript
from allim.testing.solapi import FakeSolapi

START_SECONDS = 120.0
STOP_SECONDS = 30.0
USUAL_PORT = 18080
WEBHOOK_SECRET = "demo"  # noqa: S105
SLACK_PATH = "/services/T00000000/B00000000/demo"


@dataclass
class Stage:
    """What runs while the demo does."""

    url: str
    home: Path
    database: str
    started_in: float
    """Seconds until the API answered, the database included."""
    slack: HttpSink
    partner: HttpSink
    sheet: FakeAppsScript
    kakao: HttpSink
    solapi: FakeSolapi
    session: aiohttp.ClientSession
    process: asyncio.subprocess.Process
    texts_sent: int = 0
    """How many the demo has seen go out by Solapi."""
    printed: list[str] = field(default_factory=list)
    """What Allim wrote on stdout: the mails that a mock prints."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with every line of those."""


@asynccontextmanager
async def stage(home: Path) -> AsyncIterator[Stage]:
    """Start everything; stopped at the end, the database last.

    Raises AllimError with what `allim up` said where it does not start.
    """
    async with (
        HttpSink() as slack,
        HttpSink() as partner,
        FakeAppsScript() as sheet,
        HttpSink() as kakao,
        FakeSolapi() as solapi,
        aiohttp.ClientSession() as session,
    ):
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "allim",
            "up",
            env=_environment(home, slack, sheet, kakao, solapi),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Ctrl-C is ours to hear; we end it, in good order.
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        printed: list[str] = []
        arrived = asyncio.Event()
        reading = [asyncio.create_task(_keep(process.stdout, printed, arrived))]
        try:
            async with asyncio.timeout(START_SECONDS):
                url, database = await _listening(process.stderr)
            started_in = time.monotonic() - began
            reading.append(asyncio.create_task(_keep(process.stderr, [], asyncio.Event())))
            yield Stage(
                url=url,
                home=home,
                database=database,
                started_in=started_in,
                slack=slack,
                partner=partner,
                sheet=sheet,
                kakao=kakao,
                solapi=solapi,
                session=session,
                process=process,
                printed=printed,
                arrived=arrived,
            )
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), STOP_SECONDS)
                except TimeoutError:
                    process.kill()
            for task in reading:
                task.cancel()


async def _listening(stream: asyncio.StreamReader) -> tuple[str, str]:
    """Read the log until the API listens: its URL, and which database it is."""
    database = ""
    said = ""
    async for line in stream:
        try:
            words = str(json.loads(line)["event"])
        except (ValueError, KeyError):
            said = line.decode(errors="replace").strip()
            continue
        if words.startswith("PostgreSQL "):
            database = " ".join(words.split(" ")[:2])
        if words.startswith("listening on "):
            return words.split(" ")[2], database
    raise AllimError(f"`allim up` did not start: {said.removeprefix('allim: ')}")


async def _keep(stream: asyncio.StreamReader, lines: list[str], arrived: asyncio.Event) -> None:
    """Keep every line as it comes."""
    async for line in stream:
        lines.append(line.decode(errors="replace").rstrip("\n"))
        arrived.set()


def _environment(
    home: Path, slack: HttpSink, sheet: FakeAppsScript, kakao: HttpSink, solapi: FakeSolapi
) -> Mapping[str, str]:
    """The process's environment without any setting of Allim's, and with the demo's.

    Empty rather than absent: that also hides what a `.env` file says.
    """
    hidden = {name.upper(): "" for group in settings_groups() for name in group.model_fields}
    ours = {
        "ALLIM_HOME": str(home),
        "ALLIM_PORT": os.environ.get("ALLIM_PORT") or _usual_port_if_free(),
        "ALLIM_LOG_FORMAT": "json",
        "ALLIM_LOG_LEVEL": "INFO",
        "ALLIM_SSRF_ALLOW": "127.0.0.1/32",
        "SLACK_WEBHOOK_URL": slack.url + SLACK_PATH,
        "SLACK_RETRY_BASE_SECONDS": "1",
        "SHEET_WEBHOOK_URL": sheet.url,
        "SHEET_RETRY_BASE_SECONDS": "1",
        "KAKAO_WEBHOOK_URL": kakao.url + "/notices",
        "LMS_KIND": "sample",
        **solapi.environment(),
        "SOLAPI_KAKAO_PF_ID": "KA01PF000000000000000000000000000",
        "SOLAPI_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "PYTHONIOENCODING": "utf-8",
    }
    return {**os.environ, **hidden, **ours}


def _usual_port_if_free() -> str:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            return "0"
    return str(USUAL_PORT)
