"""Receipts: what a provider reports later of what it had accepted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from allim.channels.channel import Message
from allim.database.pool import Connection, Database
from allim.hub.settling import (
    FAILED_RECEIPT,
    PROVIDER_ID_LIMIT,
    STATEMENTS,
    Settled,
    SettleRows,
    receipt_verdict,
    settle_families,
    storable,
)
from allim.hub.status import DeliveryStatus
from allim.relay.outcomes import Outcome
from allim.relay.policy import ChannelPolicy
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import Transition

FinalReceipt = Literal["DELIVERED", "FAILED"]


class ReceiptResult(StrEnum):
    """What became of a receipt."""

    APPLIED = "applied"
    """It ended the delivery, which was ACCEPTED; or has it tried once more."""
    STORED = "stored"
    """It came before the settle, which will read it."""
    NOTED = "noted"
    """It stands with its attempt only: a later attempt, or another end, decides the delivery."""
    REPEATED = "repeated"
    """Its attempt has a final receipt already; the first one counts."""
    UNKNOWN = "unknown"
    """No attempt of that delivery has that provider id."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A final receipt for the attempt of a delivery that has this provider id.

    `code` and `detail` say why it failed. A failure with a `retry` is worth another try where
    the delivery has tries left, after `retry_after` seconds at least; without one it is the end.
    """

    delivery_id: int
    provider_id: str
    receipt: FinalReceipt
    code: str | None = None
    detail: str | None = None
    retry: RetryPolicy | None = None
    retry_after: float | None = None


Wake = Callable[[Collection[str]], None]
Key = tuple[int, str]


async def apply_receipt(
    database: Database,
    *,
    delivery_id: int,
    provider_id: str,
    receipt: FinalReceipt,
    wake: Wake,
    policy: ChannelPolicy[Message] | None,
) -> ReceiptResult:
    """Take in one final receipt; see `apply_receipts`."""
    one = Receipt(delivery_id, provider_id, receipt)
    (result,) = await apply_receipts(database, [one], wake=wake, policy=policy)
    return result


async def apply_receipts(
    database: Database,
    receipts: Sequence[Receipt],
    *,
    wake: Wake,
    policy: ChannelPolicy[Message] | None,
) -> Sequence[ReceiptResult]:
    """Take in final receipts in one transaction; what became of each, in their order.

    `wake` is told the channels where they left new work: the steps that follow a success, the
    fallback that follows a failure. `policy` has a hand in the same transaction where receipts
    end deliveries. Raises DatabaseUnavailable; applying them again is safe.
    """
    results = [ReceiptResult.UNKNOWN] * len(receipts)
    keys = [_key(receipt) for receipt in receipts]
    async with database.transaction(pinned=True) as tx:
        about = {"ids": [key[0] for key in keys], "provider_ids": [key[1] for key in keys]}
        cursor = await tx.execute(STATEMENTS["receipt_families"], about)
        families = {row[0] - 1: row[1] for row in await cursor.fetchall()}
        if not families:
            return results
        # The first of several for one attempt: it counts.
        first: dict[Key, int] = {}
        for place in sorted(families):
            results[place] = ReceiptResult.REPEATED
            first.setdefault(keys[place], place)
        locked = sorted(set(families.values()))
        await tx.execute(STATEMENTS["lock_families"], {"notifications": locked})
        settled = await _apply(tx, receipts, first, results)
        ended = sorted(settled.landed)
        if ended and policy is not None:
            await policy.on_receipt(tx, ended)
    if settled.lanes:
        wake(settled.lanes)
    return results


async def _apply(
    tx: Connection,
    receipts: Sequence[Receipt],
    first: dict[Key, int],
    results: list[ReceiptResult],
) -> Settled:
    """Note receipts and settle what they decide, the families being locked."""
    deliveries = await tx.execute(
        STATEMENTS["lock_receipts"], {"ids": sorted({delivery for delivery, _ in first})}
    )
    found = {row[0]: row[1:] for row in await deliveries.fetchall()}
    noted = await tx.execute(
        STATEMENTS["note_receipts"],
        {
            "ids": [delivery for delivery, _ in first],
            "provider_ids": [known_as for _, known_as in first],
            "receipts": [receipts[place].receipt for place in first.values()],
        },
    )
    rows = SettleRows()
    for delivery, known_as, is_last in sorted(await noted.fetchall()):
        place = first[delivery, known_as]
        status, retry_count, max_attempts = found[delivery]
        if not is_last:
            results[place] = ReceiptResult.NOTED
        elif status != DeliveryStatus.ACCEPTED:
            results[place] = ReceiptResult.STORED
        else:
            results[place] = ReceiptResult.APPLIED
            _decide(rows, receipts[place], known_as, retry_count + 1, max_attempts)
    return await settle_families(tx, rows, []) if rows.ids else Settled(set(), set())


def _decide(
    rows: SettleRows, receipt: Receipt, known_as: str, failures: int, max_attempts: int
) -> None:
    """What a receipt makes of an accepted delivery: its end, or another try."""
    transition, outcome, code = receipt_verdict(receipt.receipt, known_as)
    delay = None
    if receipt.receipt == FAILED_RECEIPT:
        code = receipt.code or code
        outcome = Outcome.refused(
            code or "", receipt.detail or outcome.detail, provider_id=known_as
        )
        if receipt.retry is not None and failures < max_attempts:
            transition = Transition.RETRY
            delay = receipt.retry.delay(failures, receipt.retry_after)
    rows.add(
        receipt.delivery_id,
        None,
        transition,
        outcome,
        delay=delay,
        spent=transition is Transition.RETRY,
        code=code,
        receipt=receipt.receipt,
    )


def _key(receipt: Receipt) -> Key:
    return receipt.delivery_id, storable(receipt.provider_id, PROVIDER_ID_LIMIT) or ""
