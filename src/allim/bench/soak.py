"""A soak: APIs and relays behind a pooler are killed at random, and then every id is looked for.

Three APIs and four relays share one PostgreSQL through PgBouncer in transaction mode. Callers
with idempotency keys post until they are answered; the world outside counts what arrives. About
every few seconds a process gets a kill -9 or a SIGTERM, and once the database is restarted as
by a crash. It is about what is true afterwards: its rates are those of a machine in trouble.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg
import uvloop

from allim.bench.figures import Figure, at_most, plain
from allim.bench.pooler import pooled
from allim.bench.soak_fleet import Fleet
from allim.bench.soak_load import TENANT, Callers, Witness
from allim.bench.stage import Stage, ask
from allim.bench.texting import TENANT as OPENING

CASE = "soak"
APIS, RELAYS, CALLERS = 3, 4, 8
LEASE_SECONDS = 10
DRAIN_SECONDS = 240.0

_LEFT = """
SELECT count(*) FROM delivery
 WHERE NOT (status = 'SUCCESS' OR (channel = 'SMS' AND status = 'ACCEPTED'))"""
_STORED = "SELECT idempotency_key, CAST(id AS text) FROM notification"
_DELIVERIES = """
SELECT d.recipient, d.channel, d.status, d.attempts, d.retry_count,
       count(a.*), count(*) FILTER (WHERE a.outcome IS NULL OR a.finished_at IS NULL),
       count(*) FILTER (WHERE a.outcome IN ('RETRY', 'REFUSED')),
       count(*) FILTER (WHERE a.http_status IS NULL AND a.outcome <> 'SNOOZED'),
       coalesce((array_agg(a.outcome ORDER BY a.attempt_no DESC))[1], '-')
  FROM delivery d LEFT JOIN delivery_attempt a ON a.delivery_id = d.id
 GROUP BY d.id"""
_MONEY = """
SELECT t.balance - (SELECT sum(amount) FROM tenant_ledger l WHERE l.tenant_id = t.id),
       (SELECT count(*) FROM delivery d WHERE d.channel = 'SMS' AND NOT coalesce((
            SELECT sum(amount) = -20 FROM tenant_ledger l WHERE l.delivery_id = d.id), false))
  FROM tenant t WHERE t.id = %s"""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One delivery as the database has it in the end."""

    recipient: str
    channel: str
    status: str
    attempts: int
    retries: int
    logged: int
    unfinished: int
    answered_badly: int
    in_doubt: int
    last: str

    @property
    def is_consistent(self) -> bool:
        """Whether its attempts are all on record, ended, and what it was charged for."""
        return (
            self.attempts == self.logged
            and self.unfinished == 0
            and self.retries <= self.answered_badly
            and self.last in ("DELIVERED", "ACCEPTED")
        )


def run(
    stage: Stage,
    *,
    seconds: float = 300.0,
    every: float = 4.0,
    rate: float = 60.0,
    seed: int | None = None,
) -> Iterator[Figure]:
    """Post for `seconds`, a process ending about `every` seconds; then look for every id."""
    stage.clear()
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    sys.stderr.write(f"soak: seed {seed}, {seconds:g} s\n")
    with psycopg.connect(stage.url) as connection:
        connection.execute(OPENING.encode(), [TENANT])
    with stage.process("allim.bench.text_stand_ins") as stand_ins, pooled(stage.url) as url:
        assert stand_ins.stdout is not None
        solapi = json.loads(stand_ins.stdout.readline())
        environment = {**stage.environment, **solapi, **_settings(url)}
        fleet = Fleet(environment, stage.home, stage.home / "database", apis=APIS, relays=RELAYS)
        chance = random.Random(seed)  # noqa: S311
        witness = Witness(chance)
        callers = Callers(fleet.urls, "", chance)
        uvloop.run(_live(stage, fleet, witness, callers, seconds, every, rate, chance))
        texts = ask(stand_ins, "0")
    bad = fleet.bad_ends()
    for words in (*fleet.words, *bad):
        sys.stderr.write(f"soak: {words}\n")
    yield from _story(fleet, callers, seconds)
    yield from judged(stage, callers, witness.took)
    yield at_most(CASE, "texts that went out twice", texts["doubled"], "texts", 0)
    yield at_most(CASE, "programs that did not end well at SIGTERM", len(bad), "", 0)


async def _live(
    stage: Stage,
    fleet: Fleet,
    witness: Witness,
    callers: Callers,
    seconds: float,
    every: float,
    rate: float,
    chance: random.Random,
) -> None:
    async with witness.listening(), fleet.running():
        callers.sink = witness.url
        async with asyncio.TaskGroup() as group:
            group.create_task(fleet.suffer(seconds, every, chance))
            group.create_task(callers.post_for(seconds, callers=CALLERS, rate=rate))
        loop = asyncio.get_running_loop()
        until = loop.time() + DRAIN_SECONDS
        while loop.time() < until:
            await fleet.revive()
            if not await asyncio.to_thread(_left, stage, callers.expected()):
                return
            await asyncio.sleep(0.5)


def _left(stage: Stage, expected: int) -> bool:
    left, total = stage.fetch(f"SELECT ({_LEFT}), (SELECT count(*) FROM delivery)")[0]  # noqa: S608
    return bool(left) or total < expected


def _story(fleet: Fleet, callers: Callers, seconds: float) -> Iterator[Figure]:
    accepted = len(callers.accepted)
    yield plain(CASE, "notifications that were accepted", accepted, "")
    yield plain(CASE, "a second, under fire", accepted / seconds, "1/s")
    yield plain(CASE, "posted again for want of an answer", callers.tries - accepted, "")
    for name, count in sorted(fleet.done.items()):
        yield plain(CASE, name, count, "")


def judged(stage: Stage, callers: Callers, took: Mapping[str, int]) -> Iterator[Figure]:
    """What is in the database, held against what was accepted and what arrived (by URL)."""
    stored = stage.fetch(_STORED)
    by_key = Counter(key for key, _ in stored)
    wrong_id = sum(callers.accepted.get(key) != identity for key, identity in stored)
    missing = sum(key not in by_key for key in callers.accepted)
    deliveries = [Delivered(*row) for row in stage.fetch(_DELIVERIES)]
    hooks = [each for each in deliveries if each.channel == "WEBHOOK"]
    doubled = [each for each in hooks if took.get(each.recipient, 0) > 1]
    unexplained = [e for e in doubled if took[e.recipient] > 1 + e.in_doubt]
    unsettled = sum(e.status not in ("SUCCESS", "ACCEPTED") for e in deliveries)
    unbalanced, wrongly_charged = stage.fetch(_MONEY, TENANT)[0]
    for name, value in (
        ("accepted, but not stored", missing),
        ("stored under another id, or unasked", wrong_id),
        ("stored twice", sum(count > 1 for count in by_key.values())),
        ("deliveries too few or too many", abs(len(deliveries) - callers.expected())),
        ("deliveries that are not done", unsettled),
        ("done, but never arrived", sum(not took.get(e.recipient) for e in hooks)),
        ("arrived twice, and nothing explains it", len(unexplained)),
        ("deliveries whose attempts do not add up", sum(not e.is_consistent for e in deliveries)),
        ("balance apart from the ledger", abs(unbalanced)),
        ("texts not paid for exactly once", wrongly_charged),
    ):
        yield at_most(CASE, name, value, "", 0)
    yield plain(CASE, "deliveries", len(deliveries), "")
    yield plain(CASE, "arrived twice, after an answer that nobody saw", len(doubled), "")


def _settings(url: str) -> Mapping[str, str]:
    # Half an hour of leases, retries and rescues in five minutes.
    return {
        "DATABASE_URL": url,
        "ALLIM_DATABASE_CONNECTIONS": "6",
        "ALLIM_SHUTDOWN_SECONDS": "5",
        "DELIVERY_LEASE_SECONDS": str(LEASE_SECONDS),
        "DELIVERY_RESCUE_SECONDS": "1",
        "OUTBOX_RETRY_BASE_SECONDS": "1",
        "OUTBOX_RETRY_MAX_SECONDS": "5",
        "WEBHOOK_TIMEOUT_SECONDS": "4",
        "WEBHOOK_MAX_ATTEMPTS": "50",
        "WEBHOOK_SECRETS": "whsec_" + "QUxMSU1iZW5jaG1hcmtzZWNyZXRrZXkh",
        "SMS_TIMEOUT_SECONDS": "4",
        "SMS_MAX_ATTEMPTS": "50",
        "SOLAPI_REPORT_POLL_SECONDS": "0",
    }
