"""The documentation's code runs: `sh` blocks against a real Allim, `python` blocks as they stand.

Blocks of other kinds (`console`, `ini`) show what cannot be run here: prompts, real servers. What
is in them is looked at by test_every_block.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from allim.channels.signing import sign
from tests.docs.blocks import PAGES as EVERY_PAGE
from tests.docs.blocks import ROOT
from tests.docs.blocks import blocks as blocks_of
from tests.programs import PATIENCE_SECONDS, an_empty_directory, clean_environment, programs

USUAL = "http://127.0.0.1:18080"
SINK = "127.0.0.1:18099"


def blocks(page: str, language: str) -> list[str]:
    """The bodies of a page's blocks of one language."""
    return [b.body for b in blocks_of(ROOT / page) if b.language == language and not b.shown_only]


PAGES = [name for page in EVERY_PAGE if blocks(name := page.relative_to(ROOT).as_posix(), "sh")]


@pytest.mark.parametrize("page", PAGES)
async def test_shell_blocks_run(page: str) -> None:
    before, after = around_the_start(page)
    with an_empty_directory() as place, socket.create_server(("127.0.0.1", 0)) as taken:
        sink = f"127.0.0.1:{taken.getsockname()[1]}"
        taken.close()
        # Whatever a page shows must be answered well, unless it says otherwise.
        (place / ".curlrc").write_text("fail-with-body\nmax-time = 60\n")
        await run(place, before, {SINK: sink})
        async with programs(place) as start:
            allim = await start("up", ALLIM_HOST="127.0.0.1")
            await run(place, after, {USUAL: allim.url, SINK: sink})


def around_the_start(page: str) -> tuple[str, str]:
    """What a page does before it starts Allim, and after; all of it after where it starts none."""
    scripts: tuple[list[str], list[str]] = ([], [])
    started = False
    for block in blocks_of(ROOT / page):
        if block.language == "console" and "allim up" in block.body:
            started = True
        elif block.language == "sh" and not block.shown_only:
            scripts[started].append(block.body)
    before, after = ("\n".join(script) for script in scripts)
    return (before, after) if started else ("", before)


async def run(place: Path, script: str, addresses: Mapping[str, str]) -> None:
    """Run a script as somebody at a terminal would, with other addresses than the usual."""
    for usual, other in addresses.items():
        script = script.replace(usual, other)
    if SINK in addresses:
        port = addresses[SINK].rpartition(":")[2]
        script = script.replace("allim.testing sink", f"allim.testing sink --port {port}")
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        cwd=place,
        env=clean_environment(
            HOME=str(place),
            CURL_HOME=str(place),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, _ = await process.communicate()
    finally:
        # What a page leaves in the background goes with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == 0, out.decode()


def test_a_receiver_can_verify_with_what_the_page_shows() -> None:
    (code,) = blocks("docs/how-to/webhooks.md", "python")
    module: dict[str, Any] = {}
    exec(compile(code, "webhooks.md", "exec"), module)
    secret, other = "whsec_" + "QUJD" * 10, "whsec_" + "REVG" * 10
    body, at = b'{"type":"ORDER"}', int(time.time())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(at),
        "webhook-signature": sign([other, secret], message_id="msg_1", timestamp=at, body=body),
    }
    assert module["verify"](secret, headers, body)
    assert not module["verify"](secret, headers, body + b" ")
    assert not module["verify"]("whsec_" + "R0hJ" * 10, headers, body)
    old = {**headers, "webhook-timestamp": str(at - 3600)}
    assert not module["verify"](secret, old, body)
