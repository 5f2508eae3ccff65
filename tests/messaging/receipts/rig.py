"""Texts that were accepted by a fake Solapi, and whoever takes in what is reported of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from allim.base.ids import uuid7
from allim.base.settings import Environment
from allim.channels import alimtalk, sms
from allim.channels.channel import Message
from allim.channels.registry import make_http, make_services
from allim.channels.solapi.channel import SolapiChannel
from allim.database.pool import Database
from allim.hub.delivery_box import DeliveryBox
from allim.messaging.receipts import ReceiptCheck, ReceiptInbox
from allim.relay.policy import ChannelPolicy
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import decide
from allim.relay.work import Work
from allim.testing.solapi import FakeSolapi

SMS = "SMS"
ALIMTALK = "ALIMTALK"
NEVER = 0.0
RETRY = RetryPolicy(base=60.0, attempts=3, jitter=lambda: 1.0)


class ReportsRig:
    """Everything between the box and Solapi, one step at a time."""

    def __init__(self, database: Database, solapi: FakeSolapi) -> None:
        self.database = database
        self.solapi = solapi
        self.woken: list[str] = []
        self.box = DeliveryBox(database, wake=self.woken.extend)
        self.inbox = ReceiptInbox(database, self.woken.extend)
        environment = Environment(
            {
                **solapi.environment(),
                "SOLAPI_KAKAO_PF_ID": "KA01PF0001",
                "SOLAPI_KAKAO_TEMPLATE_ID": "KA01TP0001",
            }
        )
        self.http = make_http(environment)
        services = make_services(self.http)
        self.channels: dict[str, SolapiChannel] = {
            SMS: sms.make(environment, services),
            ALIMTALK: alimtalk.make(environment, services),
        }

    def check(
        self, *, poll: float = NEVER, policy: ChannelPolicy[Message] | None = None
    ) -> ReceiptCheck:
        """Somebody who takes in reports; as many as there are relays."""
        client = self.channels[SMS].client
        assert client is not None
        return ReceiptCheck(
            self.database,
            client,
            channels={SMS: RETRY, ALIMTALK: RETRY},
            policy=policy,
            wake=self._wake,
            poll=poll,
        )

    def _wake(self, lanes: Collection[str]) -> None:
        self.woken.extend(lanes)

    async def add(self, number: str, *, channel: str = SMS, **columns: Any) -> int:
        """A delivery that waits to be sent."""
        notification = uuid7()
        steps = {
            name: Jsonb(columns[name]) if columns.get(name) else None
            for name in ("then_steps", "fallback_steps")
        }
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO notification (id, source, type, message)"
                " VALUES (%s, 'test', 'TEST', '안녕하세요')",
                [notification],
            )
            cursor = await connection.execute(
                "INSERT INTO delivery (notification_id, channel, recipient, max_attempts,"
                " then_steps, fallback_steps) VALUES (%s, %s, %s, 3, %s, %s) RETURNING id",
                [notification, channel, number, steps["then_steps"], steps["fallback_steps"]],
            )
            row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def claim(self, channel: str = SMS) -> list[Work[Message]]:
        """What is due in a lane."""
        claim = await self.box.claim(channel, limit=500, lease=60.0, worker="w", policy=None)
        return list(claim.works)

    async def send(self, works: list[Work[Message]], channel: str = SMS) -> None:
        """Send and settle."""
        sent = await self.channels[channel].send(works, self.box.record_provider_id)
        settlements = [decide(w, o, RETRY) for w, o in zip(works, sent, strict=True)]
        await self.box.settle(settlements, None)

    async def accepted(self, *numbers: str, channel: str = SMS, **columns: Any) -> list[int]:
        """Deliveries that Solapi has taken, in one group."""
        ids = [await self.add(number, channel=channel, **columns) for number in numbers]
        await self.send(await self.claim(channel), channel)
        return ids

    async def hear_of_all(self) -> None:
        """A webhook spoke of every group."""
        await self.inbox.hear_of(set(self.solapi.groups))

    async def run(self, statement: str) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement)

    async def make_due(self) -> None:
        """Time passes."""
        await self.run("UPDATE receipt_inbox SET due_at = now(), asked_at = NULL")
        await self.run("UPDATE delivery SET next_retry_at = now() WHERE next_retry_at > now()")

    async def age(self, seconds: int) -> None:
        """What was accepted was so some time ago."""
        await self.run(f"UPDATE delivery SET sent_at = now() - interval '{seconds} seconds'")

    async def delivery(self, delivery_id: int) -> dict[str, Any]:
        """A delivery as it stands."""
        (row,) = await self._rows(f"SELECT * FROM delivery WHERE id = {delivery_id}")
        return row

    async def status(self, delivery_id: int) -> str:
        return str((await self.delivery(delivery_id))["status"])

    async def children(self, delivery_id: int) -> list[dict[str, Any]]:
        return await self._rows(
            f"SELECT * FROM delivery WHERE parent_id = {delivery_id} ORDER BY id"
        )

    async def inbox_rows(self) -> list[dict[str, Any]]:
        return await self._rows(
            "SELECT *, due_at - now() AS wait, due_at - asked_at AS pause FROM receipt_inbox"
        )

    async def _rows(self, statement: str) -> list[dict[str, Any]]:
        async with self.database.connection() as connection:
            cursor = await connection.cursor(row_factory=dict_row).execute(statement)
            return await cursor.fetchall()


@asynccontextmanager
async def reports_rig(database: Database) -> AsyncIterator[ReportsRig]:
    async with FakeSolapi() as solapi:
        rig = ReportsRig(database, solapi)
        try:
            yield rig
        finally:
            await rig.http.close()
