"""Tenants: who pays for messages, by what they are sent, and what was paid."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, LiteralString

from allim.base.errors import Conflict, FieldProblem, IdempotencyMismatch, InvalidRequest, NotFound
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub import cursors
from allim.hub.views import Page
from allim.messaging import ledger
from allim.messaging.tenant_model import (
    LARGEST_AMOUNT,
    CreditRequest,
    CreditView,
    LedgerRow,
    Month,
    TenantChange,
    TenantRequest,
    TenantView,
)

SQL = Statements.load("allim.messaging", "tenants.sql")

STATEMENT_STEP = 2000
COLUMNS = (
    "time_kst",
    "kind",
    "message_kind",
    "amount",
    "balance_after",
    "delivery_id",
    "attempt_no",
    "recipient",
    "note",
)


class Tenants:
    """Opens, shows, changes and credits tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, request: TenantRequest) -> TenantView:
        """Open a tenant; its opening balance is the first row of its ledger. Raises Conflict."""
        async with self._database.transaction() as tx:
            fields = request.model_dump(exclude={"balance"})
            if await _one(tx, _statement("create"), fields) is None:
                raise Conflict("tenant_exists", f"there is a tenant {request.id} already")
            if request.balance:
                await _move(tx, request.id, request.balance, kind="opening")
            return TenantView.model_validate(await _one(tx, _statement("one"), {"id": request.id}))

    async def change(self, tenant: int, change: TenantChange) -> TenantView:
        """Change what is given; an explicit null clears. Raises NotFound."""
        given = change.model_dump()
        for name in ("kakao_pf_id", "sender", "low_balance_krw"):
            given[f"sets_{name}"] = name in change.model_fields_set
        async with self._database.transaction() as tx:
            row = await _one(tx, _statement("change"), {**given, "id": tenant})
        return _found(tenant, row)

    async def show(self, tenant: int) -> TenantView:
        """One tenant; raises NotFound."""
        rows = await self._database.fetch(_statement("one"), {"id": tenant})
        return _found(tenant, rows[0][0] if rows else None)

    async def list(
        self, *, own: int | None, limit: int = 50, cursor: str | None = None
    ) -> Page[TenantView]:
        """A page of tenants by id; `own` restricts it to one. Raises InvalidCursor."""
        after = cursors.read_delivery_cursor(cursor) if cursor else 0
        rows = await self._database.fetch(
            _statement("list"), {"after": after, "own": own, "limit": limit + 1}
        )
        found = [TenantView.model_validate(row[0]) for row in rows]
        return Page.of(found, limit, lambda last: cursors.delivery_cursor(last.id))

    async def credit(
        self, tenant: int, request: CreditRequest, *, idempotency_key: str | None
    ) -> CreditView:
        """Add money. A key that was used before answers with what it did then.

        Raises NotFound, IdempotencyMismatch (the key was used for another amount), Conflict where
        a negative amount is more than there is.
        """
        async with self._database.transaction() as tx:
            locked = await (
                await tx.execute(ledger.SQL["lock_tenants"], {"tenants": [tenant], "low": 0})
            ).fetchone()
            if locked is None:
                raise _no_tenant(tenant)
            written = await self._earlier(tx, tenant, request, idempotency_key)
            if written is not None:
                return written
            balance = locked[1]
            if balance + request.amount < 0:
                raise Conflict(
                    "balance_too_low", f"tenant {tenant} has {balance} KRW, no more can be taken"
                )
            if balance + request.amount > LARGEST_AMOUNT:
                problem = FieldProblem("/amount", "too_large", "makes the balance too large")
                raise InvalidRequest([problem])
            return await _move(
                tx,
                tenant,
                request.amount,
                kind="credit",
                key=idempotency_key,
                note=request.note,
            )

    async def _earlier(
        self, tx: Connection, tenant: int, request: CreditRequest, key: str | None
    ) -> CreditView | None:
        if key is None:
            return None
        found = await (
            await tx.execute(ledger.SQL["find_credit"], {"tenant": tenant, "key": key})
        ).fetchone()
        if found is None:
            return None
        if (found[1], found[4]) != (request.amount, request.note):
            raise IdempotencyMismatch(key)
        return _credit_view(found, replayed=True)

    async def ledger(
        self, tenant: int, *, month: Month | None, limit: int = 50, cursor: str | None = None
    ) -> Page[LedgerRow]:
        """A page of its ledger, newest first. Raises NotFound and InvalidCursor."""
        await self.show(tenant)
        before = cursors.read_delivery_cursor(cursor) if cursor else None
        rows = await self._database.fetch(
            SQL["ledger"],
            {"tenant": tenant, "before": before, "limit": limit + 1, **_span(month)},
        )
        found = [LedgerRow.model_validate(row[0]) for row in rows]
        return Page.of(found, limit, lambda last: cursors.delivery_cursor(last.id))

    async def statement(self, tenant: int, month: Month | None) -> AsyncIterator[str]:
        """A month, or all there is, as CSV, piece by piece, oldest first; times are KST."""
        yield _csv([COLUMNS])
        after = 0
        while True:
            rows = await self._database.fetch(
                SQL["statement"],
                {"tenant": tenant, "after": after, "limit": STATEMENT_STEP, **_span(month)},
            )
            if rows:
                yield _csv([tuple(_cell(value) for value in row[1:]) for row in rows])
                after = rows[-1][0]
            if len(rows) < STATEMENT_STEP:
                return


async def _move(
    tx: Connection,
    tenant: int,
    amount: int,
    *,
    kind: str,
    key: str | None = None,
    note: str | None = None,
) -> CreditView:
    row = await (
        await tx.execute(
            ledger.SQL["credit"],
            {"tenant": tenant, "amount": amount, "kind": kind, "key": key, "note": note},
        )
    ).fetchone()
    assert row is not None, "the tenant is locked, and no such key was found"
    return _credit_view(row, replayed=False)


def _credit_view(row: Any, *, replayed: bool) -> CreditView:
    identity, amount, balance_after, created_at, note = row
    return CreditView(
        id=identity,
        amount=amount,
        balance_after=balance_after,
        created_at=created_at,
        note=note,
        replayed=replayed,
    )


def _span(month: Month | None) -> Mapping[str, datetime | None]:
    if month is None:
        return {"begins": None, "ends": None}
    return {"begins": month.begins, "ends": month.ends}


def _csv(rows: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if not isinstance(value, str):
        return "" if value is None else str(value)
    # Or a spreadsheet would run it.
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


async def _one(tx: Connection, statement: LiteralString, parameters: Mapping[str, Any]) -> Any:
    row = await (await tx.execute(statement, parameters)).fetchone()
    return None if row is None else row[0]


def _found(tenant: int, row: Any) -> TenantView:
    if row is None:
        raise _no_tenant(tenant)
    return TenantView.model_validate(row)


def _no_tenant(tenant: int) -> NotFound:
    return NotFound("tenant_not_found", f"there is no tenant {tenant}")


def _statement(name: str) -> LiteralString:
    return SQL[name].replace("{tenant}", SQL["tenant_columns"])
