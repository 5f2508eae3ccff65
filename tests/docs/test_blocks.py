"""The documentation's code runs: `sh` blocks against a real Allim, `python` blocks as they stand.

Blocks of other kinds (`console`, `ini`) show what cannot be run here: prompts, real servers. What
is in them is looked at by test_every_block.py.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from allim.channels.signing import sign
from tests.docs.blocks import PAGES as EVERY_PAGE
from tests.docs.blocks import ROOT
from tests.docs.blocks import blocks as blocks_of
from tests.programs import PATIENCE_SECONDS, an_empty_directory, clean_environment, programs

USUAL = "http://127.0.0.1:18080"


def blocks(page: str, language: str) -> list[str]:
    """The bodies of a page's blocks of one language."""
    return [b.body for b in blocks_of(ROOT / page) if b.language == language and not b.shown_only]


PAGES = [name for page in EVERY_PAGE if blocks(name := page.relative_to(ROOT).as_posix(), "sh")]


@pytest.mark.parametrize("page", PAGES)
async def test_shell_blocks_run(page: str) -> None:
    with an_empty_directory() as place:
        # Whatever a page shows must be answered well, unless it says otherwise.
        (place / ".curlrc").write_text("fail-with-body\nmax-time = 60\n")
        async with programs(place) as start:
            allim = await start("up", ALLIM_HOST="127.0.0.1")
            script = "\n".join(blocks(page, "sh")).replace(USUAL, allim.url)
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
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(PATIENCE_SECONDS):
                out, _ = await process.communicate()
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
