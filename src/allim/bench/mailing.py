"""E-mail to a local server that takes everything."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import aiosmtplib
import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from allim.bench.draining import fill, settled_per_second, wait_until_settled
from allim.bench.figures import Figure, at_least, at_most, plain
from allim.bench.stage import Stage, ask

CASE = "email"
CONNECTIONS = 8
MAIL = b"From: a@hub.example\r\nTo: kim@example.com\r\nSubject: title\r\n\r\nmessage\r\n"


def run(stage: Stage, *, deliveries: int = 4000) -> Iterator[Figure]:
    """A backlog of mails by one relay process, without and with DKIM, and a bare client's loop."""
    dkim = {
        "DKIM_DOMAIN": "hub.example",
        "DKIM_SELECTOR": "s1",
        "DKIM_PRIVATE_KEY": _key(),
        "SMTP_FROM": "no-reply@hub.example",
    }
    rates, connections = [], 0
    with stage.process("allim.bench.mail_sink") as sink:
        assert sink.stdout is not None
        opened = json.loads(sink.stdout.readline())
        url = f"smtp://127.0.0.1:{opened['port']}?starttls=never"
        for settings in ({}, dkim):
            before = ask(sink)
            fill(stage, deliveries, "EMAIL", "kim@example.com")
            with stage.process("allim", "relay", "--channel", "EMAIL", SMTP_URL=url, **settings):
                wait_until_settled(stage, deliveries)
            after = ask(sink)
            if after["mails"] - before["mails"] != deliveries:
                raise RuntimeError(f"{deliveries} mails were settled, but other numbers came")
            rates.append(settled_per_second(stage))
            connections = after["connections"] - before["connections"]
        bare = uvloop.run(_bare_loop(opened["port"], deliveries))
    server = opened["server"]
    yield plain(CASE, f"bare client loop, {CONNECTIONS} connections, {server}", bare, "mails/s")
    yield at_least(CASE, "one relay process", rates[0], "mails/s", 300)
    yield at_least(CASE, "relay to bare client loop", rates[0] / bare, "×", 0.4)
    yield at_least(CASE, "one relay process, signed by DKIM (RSA 2048)", rates[1], "mails/s", 300)
    mails = deliveries / max(connections, 1)
    yield at_least(CASE, "mails to a connection", mails, "mails", 50)
    retried = stage.fetch("SELECT count(*) FROM delivery WHERE attempts > 1")[0][0]
    yield at_most(CASE, "sent in a later attempt", retried, "mails", 0)


def _key() -> str:
    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


async def _bare_loop(port: int, count: int) -> float:
    """Mails a second by the SMTP client alone, which is what a relay cannot beat."""

    async def send(times: int) -> None:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False)
        await client.connect()
        for _ in range(times):
            await client.sendmail("a@hub.example", "kim@example.com", MAIL)
        await client.quit()

    began = time.perf_counter()
    await asyncio.gather(*(send(count // CONNECTIONS) for _ in range(CONNECTIONS)))
    return count / (time.perf_counter() - began)
