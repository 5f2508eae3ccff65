"""A hub in trouble, and a busy one: what the pages of operators are shown."""

from __future__ import annotations

from typing import LiteralString

from allim.database.pool import Database
from allim.hub.rollups import Rollups
from allim.relay.tally import Broken, Cell, Sums

DELIVERIES: LiteralString = """
INSERT INTO delivery (notification_id, channel, status, max_attempts, next_retry_at, created_at)
SELECT gen_random_uuid(), %(channel)s, %(status)s, 8,
       now() + make_interval(secs => %(next)s::float8), now() - make_interval(secs => %(age)s)
  FROM generate_series(1, %(count)s)
"""
EVENTS: LiteralString = """
INSERT INTO outbox_messages (id, topic, message_key, slot, payload, content_type, headers, status,
                             parked, error_message, retry_count, created_at)
SELECT gen_random_uuid(), %(topic)s, %(key)s, outbox_slot(%(key)s), convert_to(%(payload)s, 'UTF8'),
       'application/json', %(headers)s, %(status)s, %(parked)s, %(error)s,
       CASE WHEN %(error)s::text IS NULL THEN 0 ELSE 3 END, now() - interval '2 minutes'
  FROM generate_series(1, %(count)s)
RETURNING id
"""


async def add_deliveries(
    database: Database,
    channel: str,
    count: int,
    *,
    status: str = "PENDING",
    age: float = 0.0,
    next_: float | None = None,
) -> None:
    """Deliveries as they would wait; `next_` is in how many seconds they are due again."""
    async with database.transaction() as tx:
        parameters = {
            "channel": channel,
            "status": status,
            "count": count,
            "age": age,
            "next": next_,
        }
        await tx.execute(DELIVERIES, parameters)


async def add_events(
    database: Database,
    count: int,
    *,
    topic: str = "orders",
    key: str | None = "A-1",
    status: str = "PENDING",
    parked: bool = False,
    error: str | None = None,
    payload: str = '{"order": 1024}',
    headers: str = '{"trace": "t-1"}',
) -> str:
    """Events as they would wait; the id of one of them."""
    rows = await database.fetch(
        EVENTS,
        {
            "count": count,
            "topic": topic,
            "key": key,
            "status": status,
            "parked": parked,
            "error": error,
            "payload": payload,
            "headers": headers,
        },
    )
    return str(rows[0][0])


async def add_blocked_key(database: Database, *, key: str = "A-1", error: str = "refused") -> str:
    """A dead event with two that wait behind it; the id of the dead one."""
    head = await add_events(database, 1, key=key, status="DEAD", parked=True, error=error)
    await add_events(database, 2, key=key, parked=True)
    return head


async def add_hour(database: Database, worker: str = "host-1-abcdef") -> None:
    """An hour of work with its ups and downs, and the relay that did it."""
    book = Rollups(database)
    [(now,)] = await database.fetch("SELECT extract(epoch FROM clock_timestamp())::float8")
    first = int(now // 60) * 60
    sums: dict[Cell, Sums] = {}
    for n in range(60):
        part = now % 60 / 60 if n == 0 else 1.0
        wave = int(part * (40 + 25 * ((n * 7) % 11) // 11))
        bad = 12 if 20 <= n < 30 else 1
        at = first - n * 60
        sums[Cell(at, "delivery", "EMAIL")] = Sums(wave * 3, 1, 0, 0, 0, wave, wave * 0.08, 0.6)
        sums[Cell(at, "delivery", "SLACK")] = Sums(wave, bad, bad // 6, 0, 0, wave, wave * 0.2, 1.9)
        sums[Cell(at, "outbox", "orders")] = Sums(wave * 5, int(n % 5 == 0))
    await book.write(worker, sums)
    await database.fetch(
        "INSERT INTO metric_rollup (span, starts_at, box, channel, worker, created)"
        " SELECT span, starts_at, box, channel, '', delivered + 9 + 11 * (delivered % 3)"
        "   FROM metric_rollup RETURNING created"
    )
    await book.beat(
        worker,
        ["EMAIL", "SLACK", "SMS", "ALIMTALK", "SHEET", "KAKAO", "WEBHOOK", "LOG", "events"],
        slots=64,
        broken=[Broken("SLACK", "hooks.slack.com #3f2a", now - 240)],
    )


async def add_trouble(database: Database) -> str:
    """Some of everything that an overview shows; the id of an event that blocks its key."""
    await add_hour(database)
    await add_deliveries(database, "EMAIL", 37, age=20)
    await add_deliveries(database, "SLACK", 412, age=400)
    await add_deliveries(database, "SLACK", 60, status="FAILED", next_=90)
    await add_deliveries(database, "SLACK", 9, status="DEAD")
    await database.fetch(
        "UPDATE delivery SET error_code = 'http_503' WHERE status = 'DEAD' RETURNING id"
    )
    await add_deliveries(database, "SMS", 3, status="HELD")
    await add_events(database, 12, topic="mails", key=None)
    head = await add_blocked_key(database)
    await database.fetch(
        "INSERT INTO run_log (category_id, trigger_type, status, total_records, changed_records,"
        " started_at, finished_at)"
        " VALUES (303, 'SCHEDULER', 'SUCCESS', 89, 1, now() - interval '1 hour', now()),"
        " (303, 'SCHEDULER', 'FAILED', 0, 0, now() - interval '5 minutes', now()) RETURNING id"
    )
    await database.fetch(
        "INSERT INTO alert (run_id, category_id, alert_type, severity, source_type, source_id,"
        " revision, title, message, notification_id)"
        " VALUES (2, 303, 'FAILED', 'high', 'run', '2', 2, 't', 'm', gen_random_uuid())"
        " RETURNING id"
    )
    await database.fetch(
        "INSERT INTO notification (id, source, type) VALUES (gen_random_uuid(), 's', 't')"
        " RETURNING id"
    )
    await database.fetch(
        "INSERT INTO endpoint (channel, url, disabled_at, disabled_reason)"
        " VALUES ('WEBHOOK', 'https://shop.example/hooks/1', now(), 'http_410') RETURNING id"
    )
    await database.fetch(
        "INSERT INTO relay (id, lease_until) VALUES ('host-1-fedcba', now() + interval '1 min')"
        " RETURNING id"
    )
    await database.fetch(
        "UPDATE relay_slot SET relay_id = 'host-1-fedcba' WHERE slot < 62 RETURNING slot"
    )
    return head
