"""Receipts: what a provider reports later of what it had accepted."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Literal

from allim.channels.channel import Message
from allim.database.pool import Database
from allim.hub.settling import (
    PROVIDER_ID_LIMIT,
    STATEMENTS,
    SettleRows,
    receipt_verdict,
    settle_families,
    storable,
)
from allim.hub.status import DeliveryStatus
from allim.relay.policy import ChannelPolicy

FinalReceipt = Literal["DELIVERED", "FAILED"]


class ReceiptResult(StrEnum):
    """What became of a receipt."""

    APPLIED = "applied"
    """It ended the delivery, which was ACCEPTED."""
    STORED = "stored"
    """It came before the settle, which will read it."""
    NOTED = "noted"
    """It stands with its attempt only: a later attempt, or another end, decides the delivery."""
    REPEATED = "repeated"
    """Its attempt has a final receipt already; the first one counts."""
    UNKNOWN = "unknown"
    """No attempt of that delivery has that provider id."""


async def apply_receipt(
    database: Database,
    *,
    delivery_id: int,
    provider_id: str,
    receipt: FinalReceipt,
    wake: Callable[[Collection[str]], None],
    policy: ChannelPolicy[Message] | None,
) -> ReceiptResult:
    """Take in a final receipt for the attempt that has this provider id.

    `wake` is told the channels where it left new work: the steps that follow a success, the
    fallback that follows a failure. `policy` has a hand in the same transaction where the receipt
    ends the delivery. Raises DatabaseUnavailable; applying it again is safe.
    """
    known_as = storable(provider_id, PROVIDER_ID_LIMIT)
    about = {"id": delivery_id, "provider_id": known_as}
    async with database.transaction(pinned=True) as tx:
        family = await (await tx.execute(STATEMENTS["receipt_family"], about)).fetchone()
        if family is None:
            return ReceiptResult.UNKNOWN
        await tx.execute(STATEMENTS["lock_families"], {"notifications": [family[0]]})
        delivery = await (await tx.execute(STATEMENTS["lock_receipt"], about)).fetchone()
        if delivery is None:
            return ReceiptResult.UNKNOWN
        noted = await (
            await tx.execute(STATEMENTS["note_receipt"], {**about, "receipt": receipt})
        ).fetchone()
        attempt_noted, delivery_noted = noted or (False, False)
        if not attempt_noted:
            return ReceiptResult.REPEATED
        if not delivery_noted:
            return ReceiptResult.NOTED
        if delivery[0] != DeliveryStatus.ACCEPTED:
            return ReceiptResult.STORED
        transition, outcome, code = receipt_verdict(receipt, known_as)
        rows = SettleRows()
        rows.add(delivery_id, None, transition, outcome, code=code, receipt=receipt)
        settled = await settle_families(tx, rows, [])
        if policy is not None:
            await policy.on_receipt(tx, [delivery_id])
    if settled.lanes:
        wake(settled.lanes)
    return ReceiptResult.APPLIED
