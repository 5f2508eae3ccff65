"""Draining a backlog: one relay process against the same statements in plain SQL."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg

from allim.bench.figures import Figure, at_least, plain
from allim.bench.stage import Stage
from allim.database.pool import PIN_PLANS
from allim.hub.settling import STATEMENTS
from allim.relay.rates import RESERVED

CASE = "drain"
BATCH = 500
CLAIM = "00000000-0000-4000-8000-000000000001"
BACKLOG = """
WITH n AS (
    INSERT INTO notification (id, source, type, title, message)
    SELECT lpad(to_hex(g), 32, '0')::uuid, 'bench', 'BENCH', 'title', 'message'
      FROM generate_series(1, %s) AS g RETURNING id)
INSERT INTO delivery (notification_id, channel, recipient, max_attempts)
SELECT id, %s, %s, 8 FROM n ORDER BY id"""

SUMMARY = """
SELECT (SELECT marks FROM progress), array_agg(d.id)::text, count(n.title)
  FROM claimed AS d JOIN notification AS n ON n.id = d.notification_id"""


def run(stage: Stage, *, deliveries: int = 50_000) -> Iterator[Figure]:
    """A backlog of LOG deliveries, drained by plain SQL and by `allim relay --channel LOG`."""
    plain_rate = _plain_sql(stage, deliveries)
    relay_rate = _relay(stage, deliveries)
    yield plain(CASE, f"plain SQL, batches of {BATCH}", plain_rate, "deliveries/s")
    yield at_least(CASE, "one relay process", relay_rate, "deliveries/s", 10_000)
    yield at_least(CASE, "relay to plain SQL", relay_rate / plain_rate, "×", 0.5)


def fill(stage: Stage, deliveries: int, channel: str, recipient: str | None) -> None:
    """Put a backlog of one channel into an empty database."""
    stage.clear()
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute(BACKLOG, [deliveries, channel, recipient])
        connection.execute("ANALYZE")
        connection.execute("CHECKPOINT")


def claim_of(marks: object) -> dict[str, object]:
    """What the relay's own claim is given: a batch of the channel LOG above these marks."""
    return {
        "channel": "LOG",
        "limit": BATCH,
        "marks": marks,
        "highest": marks,
        "reserved": RESERVED,
        "token": CLAIM,
        "worker": "bench",
        "lease": 600.0,
    }


def _plain_sql(stage: Stage, deliveries: int) -> float:
    """The relay's own claim and settle, one after the other, without a client's work."""
    fill(stage, deliveries, "LOG", None)
    head = STATEMENTS["claim"].rindex("SELECT CASE WHEN row_number()")
    claim = STATEMENTS["claim"][:head] + SUMMARY
    marks: list[int] = [0, 0, 0]
    done = 0
    with psycopg.connect(stage.url, autocommit=True) as connection:
        began = time.perf_counter()
        while done < deliveries:
            with connection.transaction():
                connection.execute(PIN_PLANS)
                row = connection.execute(claim, claim_of(marks), prepare=True).fetchone()
            assert row is not None
            marks, ids, claimed = row
            with connection.transaction():
                connection.execute(PIN_PLANS)
                connection.execute(STATEMENTS["settle"], _success(ids, claimed))
            done += claimed
        return deliveries / (time.perf_counter() - began)


def _success(ids: str, count: int) -> dict[str, object]:
    columns = dict.fromkeys(
        (
            "delays",
            "codes",
            "errors",
            "http_statuses",
            "responses",
            "provider_ids",
            "message_ids",
            "receipts",
        )
    )
    constants = {"tokens": CLAIM, "statuses": "SUCCESS", "outcomes": "DELIVERED", "spent": "false"}
    return {
        "ids": ids,
        **columns,
        **{name: "{" + ",".join([value] * count) + "}" for name, value in constants.items()},
    }


def _relay(stage: Stage, deliveries: int) -> float:
    """From the first attempt to the last settle, by the database's clock."""
    fill(stage, deliveries, "LOG", None)
    with stage.process("allim", "relay", "--channel", "LOG") as relay:
        assert relay.stdout is not None
        for _ in range(deliveries):
            relay.stdout.readline()
        wait_until_settled(stage, deliveries)
    return settled_per_second(stage)


def wait_until_settled(stage: Stage, deliveries: int, seconds: float = 120.0) -> None:
    """Wait until this many attempts are settled. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (
            stage.fetch("SELECT count(*) FROM delivery WHERE status = 'SUCCESS'")[0][0]
            >= deliveries
        ):
            return
        time.sleep(0.1)
    states = stage.fetch("SELECT status, count(*) FROM delivery GROUP BY 1")
    raise TimeoutError(f"not settled within {seconds:g} s: {states}")


def settled_per_second(stage: Stage, outcome: str = "DELIVERED") -> float:
    """Attempts that were settled so a second, from the first start to the last end."""
    rows = stage.fetch(
        "SELECT count(*) / extract(epoch FROM max(finished_at) - min(started_at))::float8"
        " FROM delivery_attempt WHERE outcome = %s",
        outcome,
    )
    return float(rows[0][0])
