"""Hands that reach into the deliveries of a real database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from psycopg.types.json import Jsonb

from allim.base.errors import Conflict
from allim.base.ids import uuid7
from allim.channels.channel import Message
from allim.database.pool import Database
from allim.hub.delivery_box import DeliveryBox
from allim.hub.operations import Operations
from allim.hub.receipts import FinalReceipt, ReceiptResult, apply_receipt
from allim.hub.status import DeliveryStatus
from allim.relay.box import Box
from allim.testing.boxes import AttemptState, BoxHarness, DeliveryState, Entry

ADD = """
WITH n AS (
    INSERT INTO notification (id, source, type, priority)
    VALUES (%(notification)s, 'test', 'TEST', %(priority)s) ON CONFLICT DO NOTHING)
INSERT INTO delivery (notification_id, channel, recipient, row_key, max_attempts, priority,
                      next_retry_at, expires_at, then_steps, fallback_steps)
VALUES (%(notification)s, %(channel)s, %(recipient)s, %(row_key)s, %(max_attempts)s, %(priority)s,
        now() + %(due_in)s * interval '1 second', now() + %(expires_in)s * interval '1 second',
        %(then)s, %(fallback)s)
RETURNING id
"""

STATE = """
SELECT id, channel, recipient, status, attempts, retry_count, rescue_count,
       extract(epoch FROM next_retry_at - clock_timestamp())::float8, claim_token IS NOT NULL,
       step, parent_id, superseded_by, error_code, last_error, provider_id, receipt_status
  FROM delivery WHERE {} ORDER BY id
"""
ATTEMPTS = """
SELECT attempt_no, finished_at IS NOT NULL, outcome, error_code, error, http_status, response,
       provider_id, receipt_status, worker
  FROM delivery_attempt WHERE delivery_id = %(id)s ORDER BY attempt_no
"""


class DatabaseHarness(BoxHarness):
    """A box of deliveries on a real database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.woken: list[str] = []
        self.box: DeliveryBox = DeliveryBox(database, wake=self.woken.extend)
        self.operations = Operations(database)

    def another(self) -> Box[Message]:
        return DeliveryBox(self.database)

    async def add(
        self,
        entry: Entry,
        *,
        notification: UUID | None = None,
        priority: int = 1,
        due_in: float | None = None,
        expires_in: float | None = None,
    ) -> int:
        steps = {
            name: Jsonb(entry[name]) if entry.get(name) else None for name in ("then", "fallback")
        }
        rows = await self.database.fetch(
            ADD,
            {
                "notification": notification or uuid7(),
                "channel": entry["channel"],
                "recipient": entry.get("recipient"),
                "row_key": entry.get("row_key"),
                "max_attempts": entry.get("max_attempts", 8),
                "priority": priority,
                "due_in": due_in,
                "expires_in": expires_in,
                **steps,
            },
        )
        return int(rows[0][0])

    async def read(self, delivery_id: int) -> DeliveryState:
        (state,) = await self.states("id = %(id)s", delivery_id)
        return state

    async def states(self, condition: str, delivery_id: int | None = None) -> list[DeliveryState]:
        """The deliveries that a condition fits, by id."""
        statement: str = STATE.format(condition)
        rows = await self.database.fetch(statement, {"id": delivery_id})
        return [replace(DeliveryState(*row), status=DeliveryStatus(row[3])) for row in rows]

    async def attempts(self, delivery_id: int) -> Sequence[AttemptState]:
        rows = await self.database.fetch(ATTEMPTS, {"id": delivery_id})
        return [AttemptState(*row) for row in rows]

    async def children(self, delivery_id: int) -> Sequence[DeliveryState]:
        return await self.states("parent_id = %(id)s", delivery_id)

    async def make_due(self) -> None:
        await self._run(
            "UPDATE delivery SET next_retry_at = now() - interval '1 ms'"
            " WHERE next_retry_at > now()"
        )

    async def lapse_leases(self) -> None:
        await self._run(
            "UPDATE delivery SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL"
        )

    async def pass_expiry(self) -> None:
        await self._run("UPDATE delivery SET expires_at = now() WHERE expires_at IS NOT NULL")

    async def cancel(self, notification: UUID) -> None:
        with suppress(Conflict):
            await self.operations.cancel(notification)

    async def receive(
        self, delivery_id: int, provider_id: str, receipt: FinalReceipt
    ) -> ReceiptResult:
        return await apply_receipt(
            self.database,
            delivery_id=delivery_id,
            provider_id=provider_id,
            receipt=receipt,
            wake=self.woken.extend,
            policy=None,
        )

    async def _run(self, statement: str) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement)
