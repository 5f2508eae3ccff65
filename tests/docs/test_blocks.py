"""The documentation's code runs: `sh` blocks against a real Allim, `python` blocks as they stand.

Blocks of other kinds (`console`, `ini`) show what cannot be run here: prompts, real servers. What
is in them is looked at by test_every_block.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from allim.base.settings import Environment
from allim.channels import webhook
from allim.channels.registry import make_http, make_services
from allim.channels.signing import sign
from allim.testing.channels import a_message, send_one
from allim.testing.http import HttpSink
from allim.testing.kafka import free_ports, missing
from tests.docs.blocks import PAGES as EVERY_PAGE
from tests.docs.blocks import ROOT
from tests.docs.blocks import blocks as blocks_of
from tests.programs import PATIENCE_SECONDS, an_empty_directory, clean_environment, programs

USUAL = "http://127.0.0.1:18080"
SINK = "127.0.0.1:18099"
TUTORIAL = "docs/tutorial/first-notification.md"


def blocks(page: str, language: str) -> list[str]:
    """The bodies of a page's blocks of one language."""
    return [b.body for b in blocks_of(ROOT / page) if b.language == language and not b.shown_only]


PAGES = [name for page in EVERY_PAGE if blocks(name := page.relative_to(ROOT).as_posix(), "sh")]


async def test_the_tutorial_can_be_followed() -> None:
    before, after = around_the_start(TUTORIAL)
    assert before
    assert after
    with an_empty_directory() as place:
        here = {SINK: f"127.0.0.1:{free_ports()[0]}"}
        assert not await ended(place, before, here)
        async with programs(place) as start, a_kafka(place) as servers:
            allim = await start("up", ALLIM_HOST="127.0.0.1")
            here[USUAL] = allim.url
            assert not await ended(place, after, here)
            if servers is None:
                return
            port = servers.rpartition(":")[2]
            read = f"python -m allim.testing kafka --read user-events --port {port} > events.log"
            assert not await ended(place, read, here)
        assert (place / "events.log").read_text().splitlines() == [
            '7 {"user_id":7,"what":"created"}',
            '7 {"user_id":7,"what":"renamed"}',
        ]


@asynccontextmanager
async def a_kafka(place: Path) -> AsyncIterator[str | None]:
    """The tutorial's Kafka, named in its `.env`; None where Java or Maven are not."""
    if missing() is not None:
        yield None
        return
    servers = f"127.0.0.1:{free_ports()[0]}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "allim.testing", "kafka", "--port", servers.rpartition(":")[2]),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            if servers in line.decode():
                break
        with (place / ".env").open("a") as settings:
            settings.write(f"KAFKA_BOOTSTRAP_SERVERS={servers}\n")
        yield servers
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


async def test_the_shell_blocks_of_every_other_page_run(database_url: str) -> None:
    failed = []
    with an_empty_directory() as home:
        async with programs(home) as start:
            allim = await start("up", ALLIM_HOST="127.0.0.1", DATABASE_URL=database_url)
            for page in PAGES:
                if page == TUTORIAL:
                    continue
                place = home / page.replace("/", "-")
                place.mkdir()
                (place / ".env").write_text(f"DATABASE_URL={database_url}\n")
                script = "\n".join(around_the_start(page))
                if words := await ended(place, script, {USUAL: allim.url}):
                    failed.append(f"{page}: {words}")
    assert not failed, "\n".join(["", *failed])


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


async def ended(place: Path, script: str, addresses: Mapping[str, str]) -> str:
    """Run a script as somebody at a terminal would, with other addresses; what it said if wrong."""
    # Whatever a page shows must be answered well, unless it says otherwise.
    (place / ".curlrc").write_text("fail-with-body\nmax-time = 60\n")
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
    return f"ended with {process.returncode}: {out.decode()}" if process.returncode else ""


async def test_a_webhook_is_sent_the_body_that_the_page_shows() -> None:
    (shown,) = (json.loads(body) for body in blocks("docs/how-to/webhooks.md", "json"))
    said = dict(shown, notification_id=shown["id"], payload={**shown["payload"], "headers": {}})
    del said["id"]
    said["created_at"] = datetime.fromisoformat(shown["created_at"])
    async with HttpSink() as sink:
        environment = Environment({"ALLIM_SSRF_ALLOW": "127.0.0.0/8"})
        http = make_http(environment)
        try:
            channel = webhook.make(environment, make_services(http))
            await send_one(channel, a_message(sink.url, **said))
        finally:
            await http.close()
        (request,) = sink.requests
    assert request.json == shown
    assert list(request.json) == list(shown)


def test_the_page_of_webhooks_names_every_header_that_may_not_be_set() -> None:
    page = (ROOT / "docs/how-to/webhooks.md").read_text("utf-8").lower()
    named = {*webhook.OWN_HEADERS, *webhook.OWN_PREFIXES}
    assert not [name for name in named if f"`{name}`" not in page]


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
