"""The balance of tenants as a channel policy: no attempt without money, no money without an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from allim.base.errors import DatabaseUnavailable
from allim.base.tasks import cancel_and_wait
from allim.channels.channel import Message
from allim.database.pool import Connection, Database
from allim.messaging.ledger import Charge, Low, debit, refund_ended_holds, settle_debits
from allim.messaging.settings import BalanceSettings, MessageKind
from allim.relay.outcomes import Outcome
from allim.relay.policy import OpenPolicy
from allim.relay.settlement import Settlement, Transition
from allim.relay.work import Work

log = logging.getLogger("allim.messaging")

HOLDS_EVERY_SECONDS = 5.0

Warn = Callable[[Connection, Low], Awaitable[None]]
"""Tells operators of a tenant whose money ran low, in the transaction that found it."""

KindOf = Callable[[Message], MessageKind]
"""What a message is paid for as."""

UNPAID = Outcome.refused("insufficient_balance", "the tenant's balance does not cover this message")
UNKNOWN_TENANT = Outcome.refused("unknown_tenant", "there is no such tenant: POST /tenants")


class BalancePolicy(OpenPolicy):
    """Debits tenants for attempts and gives back what came to nothing.

    The debit stands in the claiming transaction and the refund in the settling one, so both
    are on record if and only if what they are for is. Deliveries without a tenant are the
    operator's own and cost nobody. `charges` is False where the channel calls nobody (a mock):
    then nothing is debited, but what was debited before is still settled.
    """

    def __init__(
        self, settings: BalanceSettings, kind_of: KindOf, warn: Warn, *, charges: bool = True
    ) -> None:
        self._settings = settings
        self._kind_of = kind_of
        self._warn = warn
        self._charges = charges

    @property
    def joins_claim(self) -> bool:
        """Where attempts cost something."""
        return self._charges

    async def on_attempt(
        self, tx: Connection, batch: Sequence[Work[Message]]
    ) -> Mapping[int, Outcome]:
        """Debit; refuse what its tenant cannot pay."""
        charges = [
            Charge(
                work.id, work.attempt_no, work.content.tenant_id, self._settings.price(kind), kind
            )
            for work in batch
            if work.content.tenant_id is not None
            for kind in [self._kind_of(work.content)]
        ]
        if not charges or not self._charges:
            return {}
        debited = await debit(tx, charges, low_balance=self._settings.messaging_low_balance_krw)
        for low in debited.low:
            await self._warn(tx, low)
        return {
            **dict.fromkeys(debited.unpaid, UNPAID),
            **dict.fromkeys(debited.unknown_tenant, UNKNOWN_TENANT),
        }

    def joins_settle(self, settlements: Sequence[Settlement[Message]]) -> bool:
        """Unless all of it arrived; an acceptance may meet a receipt that says otherwise."""
        return any(map(_may_come_to_nothing, settlements))

    async def on_settle(self, tx: Connection, settled: Sequence[Settlement[Message]]) -> None:
        """Refund what came to nothing."""
        ids = [each.work.id for each in settled if _may_come_to_nothing(each)]
        if ids:
            await settle_debits(tx, ids)

    async def on_receipt(self, tx: Connection, ended: Sequence[int]) -> None:
        """Refund what was accepted and did not arrive."""
        await settle_debits(tx, ended)


def _may_come_to_nothing(settlement: Settlement[Any]) -> bool:
    return (
        settlement.transition is not Transition.COMPLETE
        and settlement.work.content.tenant_id is not None
    )


class HeldDebits:
    """Gives back, every few seconds, what was held for deliveries that people cancelled.

    Cancelling and expiring are the hub's, which knows of no balances. Any number of processes
    may run this.
    """

    def __init__(self, database: Database, *, every: float = HOLDS_EVERY_SECONDS) -> None:
        self._database = database
        self._every = every
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> HeldDebits:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def refund(self) -> int:
        """One round; how many deliveries were seen to. Raises DatabaseUnavailable."""
        async with self._database.transaction() as tx:
            return await refund_ended_holds(tx)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                while await self.refund():
                    pass
            except DatabaseUnavailable as error:
                log.warning("held debits could not be looked at: %s", error)
            except Exception:
                # The loop's own boundary: what one round met must not end all giving back.
                log.exception("held debits could not be given back")
