"""The audit log and its page."""

from __future__ import annotations

import pytest

from allim.base.errors import Conflict
from allim.database.pool import Database
from allim.hub.audit import AuditFilter, AuditLog, AuditOutcome, Entry, record
from tests.console.conftest import Visitor
from tests.console.test_keys import XSS


async def test_an_action_is_on_record_before_it_begins_and_with_its_end(
    database: Database,
) -> None:
    log = AuditLog(database)

    async def fine() -> str:
        [entry] = (await log.list())[0]
        assert entry.outcome is AuditOutcome.BEGUN
        return "answer"

    async def refused() -> None:
        raise Conflict("not_retryable", "it is sent")

    async def broken() -> None:
        raise RuntimeError("gone")

    entry = Entry("kim", "delivery.retry", "delivery 7", 3, {"why": "asked"})
    assert await log.around(entry, fine) == "answer"
    with pytest.raises(Conflict):
        await log.around(entry, refused)
    with pytest.raises(RuntimeError):
        await log.around(entry, broken)

    entries, _ = await log.list()
    assert [(e.outcome, dict(e.detail)) for e in entries] == [
        (AuditOutcome.BEGUN, {"why": "asked"}),
        (AuditOutcome.REFUSED, {"why": "asked", "code": "not_retryable"}),
        (AuditOutcome.DONE, {"why": "asked"}),
    ]


async def test_the_log_is_read_in_parts_and_by_filter(visitor: Visitor, database: Database) -> None:
    async with database.transaction() as tx:
        for number in range(120):
            await record(
                tx,
                actor=f"actor{number % 2}",
                action="key.revoke",
                subject=f"key {number}",
                detail={"note": XSS},
            )
    log = AuditLog(database)
    seen, cursor = await log.list(limit=50)
    while cursor:
        more, cursor = await log.list(limit=50, cursor=cursor)
        seen += more
    assert [e.subject for e in seen] == [f"key {n}" for n in reversed(range(120))]
    assert len((await log.list(AuditFilter(actor="actor1"), limit=200))[0]) == 60

    first = await visitor.get("/audit?actor=actor1")
    assert "key 119" in first.words
    assert "key 118" not in first.words
    assert "<img" not in first.text
    assert "cursor=" in first.text
    assert (await visitor.get("/audit?cursor=none-of-ours")).status == 400
    assert (await visitor.get("/audit?actor=%00")).status == 200
