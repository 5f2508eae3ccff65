"""Webhooks to a local server that answers at once."""

from __future__ import annotations

from collections.abc import Iterator

from allim.bench.draining import fill, settled_per_second, wait_until_settled
from allim.bench.figures import Figure, at_least, plain
from allim.bench.stage import Stage, ask

CASE = "webhooks"


def run(stage: Stage, *, deliveries: int = 20_000) -> Iterator[Figure]:
    """A backlog of signed WEBHOOK deliveries to one sink, by one relay process."""
    with stage.process("allim.bench.sink") as sink:
        assert sink.stdout is not None
        port = int(sink.stdout.readline())
        fill(stage, deliveries, "WEBHOOK", f"http://127.0.0.1:{port}/hook")
        secret = "whsec_" + "QUxMSU1iZW5jaG1hcmtzZWNyZXRrZXkh"
        with stage.process("allim", "relay", "--channel", "WEBHOOK", WEBHOOK_SECRETS=secret):
            wait_until_settled(stage, deliveries)
        received = ask(sink)["count"]
    if received != deliveries:
        raise RuntimeError(f"{deliveries} webhooks were settled, but {received} received")
    yield at_least(CASE, "signed webhooks by one relay", settled_per_second(stage), "sends/s", 5000)
    retried = stage.fetch("SELECT count(*) FROM delivery WHERE attempts > 1")[0][0]
    yield plain(CASE, "sent in a later attempt", retried, "deliveries")
