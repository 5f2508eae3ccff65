"""Tenants, deliveries that cost them money, and an auditor who adds everything up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from allim.base.ids import uuid7
from allim.base.settings import Environment
from allim.channels.channel import Message
from allim.database.pool import Connection, Database
from allim.hub.delivery_box import DeliveryBox
from allim.hub.receipts import FinalReceipt, apply_receipt
from allim.messaging.balance import BalancePolicy, HeldDebits
from allim.messaging.cancellation import CancelRequest, Reservations
from allim.messaging.ledger import Low
from allim.messaging.settings import BalanceSettings, MessageKind
from allim.messaging.tenant_model import TenantRequest
from allim.messaging.tenants import Tenants
from allim.relay.outcomes import Outcome
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import decide
from allim.relay.work import Work

LANE = "SMS"
PRICE = 20
RETRY = RetryPolicy(base=60.0, jitter=lambda: 1.0)

AUDIT = """
WITH entries AS (
    SELECT d.delivery_id, d.tenant_id, d.attempt_no, -d.amount AS amount,
           count(r.id) AS refunds, coalesce(sum(r.amount), 0) AS refunded
      FROM tenant_ledger AS d
      LEFT JOIN tenant_ledger AS r ON r.kind = 'refund' AND r.delivery_id = d.delivery_id
                                  AND r.attempt_no = d.attempt_no
     WHERE d.kind = 'debit' GROUP BY d.id),
paid AS (
    SELECT d.id, d.status, h.delivery_id IS NOT NULL AS held, d.error_code,
           count(entries.amount) FILTER (WHERE entries.refunds = 0) AS open
      FROM delivery AS d
      LEFT JOIN entries ON entries.delivery_id = d.id
      LEFT JOIN tenant_hold AS h ON h.delivery_id = d.id
     WHERE d.tenant_id IS NOT NULL GROUP BY d.id, h.delivery_id)
SELECT 'balance of ' || t.id || ' is ' || t.balance || ', its ledger says '
           || coalesce(sum(l.amount), 0)
  FROM tenant AS t LEFT JOIN tenant_ledger AS l ON l.tenant_id = t.id
 GROUP BY t.id HAVING t.balance <> coalesce(sum(l.amount), 0)
UNION ALL
SELECT 'after row ' || l.id || ' it says ' || l.balance_after
  FROM (SELECT *, sum(amount) OVER (PARTITION BY tenant_id ORDER BY id) AS sum
          FROM tenant_ledger) AS l
 WHERE l.balance_after <> l.sum
UNION ALL
SELECT 'refunds of ' || delivery_id || ': ' || refunds || ' of ' || refunded
  FROM entries WHERE refunds > 1 OR (refunds = 1 AND refunded <> amount)
UNION ALL
SELECT id || ' is ' || status || CASE WHEN held THEN ' held' ELSE '' END || ' with ' || open
           || ' debits'
  FROM paid
 WHERE NOT CASE
     WHEN status IN ('SUCCESS', 'ACCEPTED') THEN open = 1 AND NOT held
     WHEN status IN ('DEAD', 'SKIPPED', 'FAILED') THEN open = 0 AND NOT held
     WHEN status IN ('PENDING', 'CANCELED', 'EXPIRED', 'HELD') THEN open = held::int
     ELSE open <= 1 END
"""


class Money:
    """A relay's box and policy, and hands that reach what else happens."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.warned: list[Low] = []
        self.box = DeliveryBox(database)
        self.policy = BalancePolicy(
            Environment({"PRICE_SMS": str(PRICE)}).read(BalanceSettings),
            lambda _message: MessageKind.SMS,
            self._warn,
        )
        self.tenants = Tenants(database)
        self.holds = HeldDebits(database)
        self.reservations = Reservations(database)

    async def _warn(self, _tx: Connection, low: Low) -> None:
        self.warned.append(low)

    async def open(self, tenant: int, balance: int, **more: Any) -> None:
        """Open a tenant."""
        await self.tenants.create(
            TenantRequest(id=tenant, name=f"tenant {tenant}", balance=balance, **more)
        )

    async def balance(self, tenant: int) -> int:
        """What a tenant has."""
        return (await self.tenants.show(tenant)).balance

    async def add(self, tenant: int | None, *, fallback: bool = False, count: int = 1) -> list[int]:
        """Deliveries of a tenant, each for a reservation that is its own id."""
        ids = []
        for _ in range(count):
            notification = uuid7()
            child = [{"channel": LANE, "recipient": "01012345678", "max_attempts": 2}]
            rows = await self.database.fetch(
                "WITH n AS (INSERT INTO notification (id, tenant_id, source, type, data)"
                "  VALUES (%(n)s, %(tenant)s, 'test', 'TEST', %(data)s))"
                " INSERT INTO delivery (notification_id, tenant_id, channel, recipient,"
                " max_attempts, fallback_steps, guard)"
                " VALUES (%(n)s, %(tenant)s, %(lane)s, '01012345678', 2, %(fallback)s, %(guard)s)"
                " RETURNING id",
                {
                    "n": notification,
                    "tenant": tenant,
                    "lane": LANE,
                    "fallback": Jsonb(child) if fallback else None,
                    "data": Jsonb({"queue": "jobs", "job_id": str(notification)}),
                    "guard": Jsonb({"reservation_id": str(notification)}),
                },
            )
            ids.append(int(rows[0][0]))
        return ids

    async def claim(self, limit: int = 100) -> tuple[list[Work[Message]], dict[int, Outcome]]:
        """Claim what is due: what may go, and what was refused."""
        while True:
            claim = await self.box.claim(
                LANE, limit=limit, lease=60.0, worker="w", policy=self.policy
            )
            if claim.works or not claim.look_again:
                break
        refused = dict(claim.refused)
        return [work for work in claim.works if work.id not in refused], refused

    async def settle(self, works: Sequence[Work[Message]], outcome: Outcome) -> set[int]:
        """Settle as a relay does."""
        return await self.box.settle([decide(w, outcome, RETRY) for w in works], self.policy)

    async def round(self, outcome: Outcome) -> set[int]:
        """Claim what is due and settle all of it so; refused ones as they were refused."""
        claim = await self.box.claim(LANE, limit=100, lease=60.0, worker="w", policy=self.policy)
        return await self.box.settle(
            [decide(w, claim.refused.get(w.id, outcome), RETRY) for w in claim.works], self.policy
        )

    async def receive(self, delivery: int, provider_id: str, receipt: FinalReceipt) -> None:
        """Take in a report."""
        await apply_receipt(
            self.database,
            delivery_id=delivery,
            provider_id=provider_id,
            receipt=receipt,
            wake=lambda _: None,
            policy=self.policy,
        )

    async def cancel(self, delivery: int) -> None:
        """Cancel its reservation."""
        rows = await self.database.fetch(
            "SELECT guard ->> 'reservation_id' FROM delivery WHERE id = %(id)s", {"id": delivery}
        )
        await self.reservations.cancel(rows[0][0], CancelRequest())

    async def run(self, statement: Any) -> None:
        """Do to the database what else happens to it."""
        async with self.database.connection() as connection:
            await connection.execute(statement)

    async def make_due(self) -> None:
        """Let all waiting pass; locks in the order of the ids, as everybody does."""
        await self.run(
            "UPDATE delivery SET next_retry_at = now() - interval '1 s'"
            " FROM (SELECT id FROM delivery WHERE next_retry_at IS NOT NULL"
            " AND status IN ('PENDING', 'FAILED') ORDER BY id FOR UPDATE) AS waiting"
            " WHERE delivery.id = waiting.id"
        )

    async def status(self, delivery: int) -> tuple[str, str | None]:
        """Status and error code."""
        rows = await self.database.fetch(
            "SELECT status, error_code FROM delivery WHERE id = %(id)s", {"id": delivery}
        )
        return rows[0][0], rows[0][1]

    async def audit(self) -> None:
        """Nothing may be amiss."""
        amiss = [row[0] for row in await self.database.fetch(AUDIT)]
        assert amiss == [], amiss
