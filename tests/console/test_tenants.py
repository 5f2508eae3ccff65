"""The page of the tenants."""

from __future__ import annotations

import re

from allim.database.pool import Database
from allim.hub.audit import AuditLog
from tests.console.conftest import ADMIN, OPERATE, Visitor


async def test_a_tenant_is_opened_topped_up_once_and_has_its_statement(
    visitor: Visitor, database: Database
) -> None:
    await visitor.get("/tenants")
    opened = await visitor.post(
        "/tenants", id="7", name="한빛 학원", balance="10000", low_balance_krw="20000"
    )
    assert "한빛 학원" in opened.words
    assert "10,000 KRW" in opened.words
    [once] = re.findall(r'name="once" value="(\w+)"', opened.text)
    for _ in range(2):
        credited = await visitor.post(
            "/tenants/7/credits", amount="5000", note="=SUM(A1)", once=once
        )
        assert "15,000 KRW" in credited.words
    assert await database.fetch("SELECT balance FROM tenant") == [(15_000,)]

    listed = await visitor.get("/tenants")
    assert "low" in listed.words
    statement = await visitor.get("/tenants/7/statement.csv")
    assert statement.headers["Content-Type"].startswith("text/csv")
    assert statement.text.count("\n") == 3
    assert "'=SUM(A1)" in statement.text
    assert "nothing was paid" in (await visitor.get("/tenants/7?month=2001-01")).words.lower()
    entries = (await AuditLog(database).list(limit=3))[0]
    assert [entry.action for entry in entries] == [
        "tenant.credit",
        "tenant.credit",
        "tenant.create",
    ]
    assert {entry.tenant_id for entry in entries} == {7}


async def test_what_cannot_be_is_said_and_what_was_typed_stays(visitor: Visitor) -> None:
    await visitor.get("/tenants")
    wrong = await visitor.post("/tenants", id="7", name="Kim", sender="not a number")
    assert wrong.status == 422
    assert 'value="Kim"' in wrong.text
    assert "sender" in wrong.words
    await visitor.post("/tenants", id="7", name="Kim")
    assert (await visitor.post("/tenants", id="7", name="Kim")).status == 409
    for amount in ("0", "x", "-1", ""):
        refused = await visitor.post("/tenants/7/credits", amount=amount, once=f"once{amount}")
        assert "flash bad" in refused.text, amount
    for path in ("/tenants/8", "/tenants/8/statement.csv", "/tenants/99999999999999999999"):
        assert (await visitor.get(path)).status == 404
    assert (await visitor.get("/tenants/7?month=never")).status == 422
    assert (await visitor.get("/tenants/7/statement.csv?month=never")).status == 422


async def test_only_an_administrator_moves_money(guarded: Visitor, database: Database) -> None:
    await guarded.log_in(OPERATE)
    assert "Open the tenant" not in (await guarded.get("/tenants")).text
    assert (await guarded.post("/tenants", id="7", name="Kim")).status == 403
    await guarded.log_in(ADMIN)
    await guarded.post("/tenants", id="7", name="Kim")
    await guarded.log_in(OPERATE)
    assert (await guarded.post("/tenants/7/credits", amount="5", once="x")).status == 403
    assert await database.fetch("SELECT balance FROM tenant") == [(0,)]
