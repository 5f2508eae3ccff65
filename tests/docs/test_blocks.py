"""The documentation's code runs: `sh` blocks against a real Allim, `python` blocks as they stand.

Blocks of other kinds (`console`, `ini`) show what cannot be run here: prompts, real servers.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from allim.channels.signing import sign
from tests.programs import PATIENCE_SECONDS, an_empty_directory, clean_environment, programs

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
USUAL = "http://127.0.0.1:18080"
PAGES = [
    "README.md",
    "README.ko.md",
    "docs/tutorial/first-notification.md",
    "docs/how-to/connect-a-sheet.md",
    "docs/how-to/connect-apprise.md",
    "docs/how-to/connect-discord.md",
    "docs/how-to/connect-kakao.md",
    "docs/how-to/connect-slack.md",
    "docs/how-to/connect-teams.md",
    "docs/how-to/connect-telegram.md",
    "docs/how-to/digest-and-quiet-hours.md",
    "docs/how-to/publish-events.md",
    "docs/how-to/replay-dead-letters.md",
    "docs/how-to/schedule-the-sync.md",
    "docs/how-to/send-email.md",
    "docs/how-to/send-in-bulk.md",
    "docs/how-to/use-templates.md",
    "docs/how-to/use-the-client.md",
    "docs/how-to/web-push.md",
    "docs/how-to/webhooks.md",
]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for kind, body in BLOCK.findall(text) if kind == language]


def test_every_page_with_shell_blocks_is_run() -> None:
    with_blocks = [
        str(path.relative_to(ROOT))
        for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        if blocks(str(path.relative_to(ROOT)), "sh")
    ]
    assert sorted(with_blocks) == sorted(PAGES)


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
