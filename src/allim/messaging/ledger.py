"""The tenants' money: every movement is a row, and a balance is always the sum of its rows.

Locks are taken in one order, which settling and receipts keep too: notification, deliveries by
id, held debits, tenants by id.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from psycopg.rows import TupleRow

from allim.base.errors import AllimError
from allim.database.pool import Connection
from allim.database.statements import Statements
from allim.messaging.settings import MessageKind

SQL = Statements.load("allim.messaging", "ledger.sql")


@dataclass(frozen=True, slots=True)
class Charge:
    """What one attempt costs its tenant, in KRW."""

    delivery_id: int
    attempt_no: int
    tenant_id: int
    amount: int
    kind: MessageKind


@dataclass(frozen=True, slots=True)
class Low:
    """A tenant whose money ran low: `balance` and `threshold` in KRW."""

    tenant_id: int
    name: str
    balance: int
    threshold: int
    refused: int
    """How many messages were refused just now because they could not be paid."""


@dataclass(frozen=True, slots=True)
class Debited:
    """What became of charges: delivery ids by why they cannot go, and whom to warn about."""

    unpaid: frozenset[int] = frozenset()
    unknown_tenant: frozenset[int] = frozenset()
    low: Sequence[Low] = ()


class LedgerMismatch(AllimError):
    """A balance is not what its ledger says; nothing was written."""


async def debit(tx: Connection, charges: Sequence[Charge], *, low_balance: int) -> Debited:
    """Take the money for attempts, as far as it goes; in the transaction that opens them.

    A delivery whose last debit was held goes on with that. `low_balance` is KRW: where a
    tenant's balance falls below it (or below its own threshold) it is told, once an hour.
    """
    ids = [charge.delivery_id for charge in charges]
    resumed = {row[0] for row in await _rows(tx, "resume", ids=ids)}
    due = sorted(
        (c for c in charges if c.delivery_id not in resumed),
        key=lambda c: (c.tenant_id, c.delivery_id),
    )
    if not due:
        return Debited()
    tenants = sorted({charge.tenant_id for charge in due})
    locked = {
        row[0]: row[1:] for row in await _rows(tx, "lock_tenants", tenants=tenants, low=low_balance)
    }
    left = {tenant: row[0] for tenant, row in locked.items()}
    paid: list[Charge] = []
    unpaid: list[Charge] = []
    for charge in due:
        if charge.tenant_id not in left:
            continue
        if left[charge.tenant_id] < charge.amount:
            unpaid.append(charge)
            continue
        left[charge.tenant_id] -= charge.amount
        if charge.amount:
            paid.append(charge)
    if paid:
        written = {row[0]: row[1] for row in await _rows(tx, "debit", **_columns(paid))}
        if any(written.get(charge.tenant_id) != left[charge.tenant_id] for charge in paid):
            # Leaving the transaction this way takes the rows back.
            raise LedgerMismatch(f"balances are {written}, but should be {left}")
    low = [
        Low(tenant, name, left[tenant], threshold, refused)
        for tenant, (_, threshold, name, may_warn) in locked.items()
        if may_warn
        and (
            (refused := sum(charge.tenant_id == tenant for charge in unpaid))
            or left[tenant] < threshold
        )
    ]
    if low:
        await tx.execute(SQL["warned"], {"tenants": [each.tenant_id for each in low]})
    return Debited(
        unpaid=frozenset(charge.delivery_id for charge in unpaid),
        unknown_tenant=frozenset(c.delivery_id for c in due if c.tenant_id not in left),
        low=low,
    )


async def settle_debits(tx: Connection, deliveries: Collection[int]) -> None:
    """Give back what was taken for deliveries that came to nothing; in their settling transaction.

    What waits for another try or for an operator keeps its debit: the next attempt goes on with
    it. Reads what the deliveries have become, so that a receipt that came first counts.
    """
    ids = sorted(deliveries)
    await tx.execute(SQL["hold"], {"ids": ids})
    await _give_back(tx, ids)


async def refund_canceled(tx: Connection, deliveries: Collection[int]) -> None:
    """Give back what is held for deliveries that were cancelled in this transaction."""
    ids = sorted(deliveries)
    await tx.execute(SQL["resume"], {"ids": ids})
    await _give_back(tx, ids)


async def refund_ended_holds(tx: Connection) -> int:
    """Give back what was held for deliveries that were cancelled or expired since; how many."""
    ids = [row[0] for row in await _rows(tx, "holds_ended")]
    if ids:
        await refund_canceled(tx, ids)
    return len(ids)


async def _give_back(tx: Connection, ids: Sequence[int]) -> None:
    open_debits = [
        Charge(delivery, attempt, tenant, amount, MessageKind(kind))
        for tenant, delivery, attempt, amount, kind in await _rows(tx, "open_debits", ids=ids)
    ]
    if not open_debits:
        return
    tenants = sorted({debit.tenant_id for debit in open_debits})
    await tx.execute(SQL["lock_tenants"], {"tenants": tenants, "low": 0})
    await tx.execute(SQL["refund"], _columns(open_debits))


def _columns(charges: Sequence[Charge]) -> dict[str, object]:
    return {
        "tenants": [charge.tenant_id for charge in charges],
        "ids": [charge.delivery_id for charge in charges],
        "attempts": [charge.attempt_no for charge in charges],
        "amounts": [charge.amount for charge in charges],
        "kinds": [charge.kind.value for charge in charges],
    }


async def _rows(tx: Connection, name: str, **parameters: object) -> list[TupleRow]:
    return await (await tx.execute(SQL[name], parameters)).fetchall()
