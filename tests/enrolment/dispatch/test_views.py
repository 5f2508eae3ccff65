"""The two outboxes as operators look at them: their words, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, LiteralString
from uuid import uuid4

from allim.database.pool import Database

FEW = 1_000
MANY = 50_000
MAILS = 100_000

CHAIN: LiteralString = """
select
  s.id as sheet_id,
  s.status as sheet_status,
  s.source_id as sheet_source_id,
  n.id as noti_id,
  n.status as noti_status,
  n.source_id as noti_source_id,
  s.updated_at as sheet_updated_at,
  n.updated_at as noti_updated_at
from sheet_outbox s
left join notification_outbox n
  on n.source_type = 'sheet_alert'
 and n.source_id = s.row_key
order by s.id desc
limit 100
"""
FAILED_SHEETS: LiteralString = """
select
  id, source_id, row_key, status, retry_count, last_error, next_retry_at, updated_at
from sheet_outbox
where status = 'FAILED'
order by updated_at desc
limit 50
"""
FAILED_NOTICES: LiteralString = """
select
  id, source_id, channel, template_code, recipient,
  status, retry_count, last_error, next_retry_at, updated_at
from notification_outbox
where status = 'FAILED'
order by updated_at desc
limit 50
"""

ONE: LiteralString = """
WITH n AS (
    INSERT INTO notification (id, source, type, title, message, data)
    VALUES (%(n)s, 'enrolment-sync', 'CHANGED', 't', 'm',
            jsonb_build_object('source_type', 'enrolment_status', 'source_id', '303:447:u1'))
), p AS (
    INSERT INTO delivery (notification_id, channel, row_key, status, max_attempts, next_retry_at,
                          retry_count, last_error, error_code, claim_token)
    VALUES (%(n)s, 'SHEET', %(key)s, %(status)s, 8, now() + interval '1 minute', 3, 'ill',
            'http_500', CASE WHEN %(status)s = 'PROCESSING' THEN gen_random_uuid() END)
    RETURNING id)
INSERT INTO delivery (notification_id, parent_id, step, channel, recipient, template_code, status,
                      max_attempts, next_retry_at, last_error, claim_token)
SELECT %(n)s, p.id, 'then', 'KAKAO', 'ops', 'KVCA_ALERT', %(status)s, 8,
       now() + interval '1 minute', 'ill',
       CASE WHEN %(status)s = 'PROCESSING' THEN gen_random_uuid() END
  FROM p
"""

ALERTS: LiteralString = """
WITH n AS (
    INSERT INTO notification (id, source, type, data)
    SELECT gen_random_uuid(), 'enrolment-sync', 'NEW',
           jsonb_build_object('source_id', '303:447:u' || i, 'padding', repeat('x', 200))
      FROM generate_series(1, %(count)s) AS i
    RETURNING id
), s AS (
    INSERT INTO delivery (notification_id, channel, row_key, status, max_attempts)
    SELECT id, 'SHEET', 'enrolment_status:' || id || ':NEW:r1', 'SUCCESS', 8 FROM n
    RETURNING id, notification_id
)
INSERT INTO delivery (notification_id, parent_id, step, channel, recipient, status, max_attempts)
SELECT notification_id, id, 'then', 'KAKAO', 'ops', 'SUCCESS', 8 FROM s
"""
MAIL_ROWS: LiteralString = """
INSERT INTO delivery (notification_id, channel, recipient, status, max_attempts)
SELECT %(n)s, 'EMAIL', 'kim@example.com', 'SUCCESS', 8 FROM generate_series(1, %(count)s)
"""

WORDS = {
    "PENDING": ("PENDING", True),
    "PROCESSING": ("PROCESSING", True),
    "SUCCESS": ("SENT", True),
    "ACCEPTED": ("SENT", True),
    "FAILED": ("FAILED", True),
    "DEAD": ("FAILED", False),
    "HELD": ("FAILED", False),
    "SKIPPED": ("SKIPPED", True),
    "CANCELED": ("CANCELED", True),
    "EXPIRED": ("EXPIRED", True),
}
"""What each state of a delivery shows as, and whether a time of its next try does."""


async def _run(database: Database, statement: LiteralString, **values: Any) -> None:
    async with database.connection() as connection:
        await connection.execute(statement, values)


async def _one(database: Database, status: str) -> None:
    await _run(database, ONE, n=uuid4(), key=f"row {status}", status=status)


async def test_each_state_shows_as_the_outbox_calls_it(database: Database) -> None:
    for status in WORDS:
        await _one(database, status)
    for view in ("sheet_outbox", "notification_outbox"):
        rows = await database.fetch(
            f"SELECT delivery_status, status, next_retry_at IS NOT NULL FROM {view}"
        )
        assert {row[0]: (row[1], row[2]) for row in rows} == WORDS


async def test_the_documents_columns_say_what_they_should(database: Database) -> None:
    for status in ("DEAD", "FAILED", "SUCCESS"):
        await _one(database, status)

    failed = {row[2]: row for row in await database.fetch(FAILED_SHEETS)}
    assert set(failed) == {"row DEAD", "row FAILED"}
    _, source_id, _, status, retries, error, next_retry, _ = failed["row FAILED"]
    assert (source_id, status, retries, error) == ("303:447:u1", "FAILED", 3, "ill")
    assert next_retry is not None
    assert failed["row DEAD"][6] is None

    notices = await database.fetch(FAILED_NOTICES)
    assert {row[1:5] for row in notices} == {
        ("row DEAD", "KAKAO", "KVCA_ALERT", "ops"),
        ("row FAILED", "KAKAO", "KVCA_ALERT", "ops"),
    }

    chain = await database.fetch(CHAIN)
    assert [(row[1], row[2], row[4], row[5]) for row in chain] == [
        ("SENT", "303:447:u1", "SENT", "row SUCCESS"),
        ("FAILED", "303:447:u1", "FAILED", "row FAILED"),
        ("FAILED", "303:447:u1", "FAILED", "row DEAD"),
    ]


async def test_what_is_no_notice_of_a_row_has_no_source(database: Database) -> None:
    await _run(
        database,
        "INSERT INTO delivery (notification_id, channel, recipient, max_attempts)"
        " VALUES (%(n)s, 'KAKAO', 'lead', 8), (%(n)s, 'EMAIL', 'a@b', 8)",
        n=uuid4(),
    )
    assert await database.fetch("SELECT source_id, recipient FROM notification_outbox") == [
        (None, "lead")
    ]
    assert await database.fetch("SELECT count(*) FROM sheet_outbox") == [(0,)]


async def test_the_chain_is_read_by_indexes_however_long_it_is(database: Database) -> None:
    await _run(database, ALERTS, count=FEW)
    await _run(database, MAIL_ROWS, n=uuid4(), count=MAILS)
    # A few alerts that are older than all the mails.
    plan = await _plan(database, CHAIN)
    assert "delivery_chain" in plan, plan
    assert "Seq Scan" not in plan, plan
    assert _pages(plan) < 5_000, plan

    await _run(database, ALERTS, count=MANY)
    plan = await _plan(database, CHAIN)
    assert not re.search(r"Seq Scan|Hash|Merge|Sort", plan), plan
    for index in ("delivery_row_key", "delivery_parent"):
        assert index in plan, plan
    assert _pages(plan) < 5_000, plan
    # Counting by status reads the rows once, and their notifications not at all.
    for view in ("sheet_outbox", "notification_outbox"):
        counted = await _plan(database, f"SELECT status, count(*) FROM {view} GROUP BY 1")
        assert "on notification" not in counted, counted
        assert "Nested Loop" not in counted, counted
    assert await database.fetch("SELECT status, count(*) FROM sheet_outbox GROUP BY 1") == [
        ("SENT", FEW + MANY)
    ]


def _pages(plan: str) -> int:
    (first, *_) = re.findall(r"Buffers: ([^\n]*)", plan)
    return sum(map(int, re.findall(r"(?:hit|read)=(\d+)", first)))


async def _plan(database: Database, statement: Any) -> str:
    async with database.connection() as connection:
        await connection.execute("ANALYZE notification, delivery")
    rows: Sequence[Any] = await database.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {statement}")
    return "\n".join(row[0] for row in rows)
