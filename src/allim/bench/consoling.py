"""The console's pages beside a hundred thousand notifications."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator, Mapping

import psycopg

from allim.bench.figures import Figure, at_most, quantile
from allim.bench.stage import Stage

CASE = "console"
WANTED_MS = 300.0
NOTIFICATIONS = """
INSERT INTO notification (id, source, type, title, message, tenant_id, created_at)
SELECT CAST(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
            || '7000' || '8' || lpad(to_hex(g), 15, '0') AS uuid),
       'service-' || g %% 20, (ARRAY['ORDER', 'PAYMENT_FAILED', 'REMINDER'])[1 + g %% 3],
       'Notice ' || g, repeat('It is about something that matters to somebody. ', 4),
       CASE WHEN g %% 4 = 0 THEN g %% 50 + 1 END, at
  FROM (SELECT g, now() - (%(count)s - g) * interval '6 seconds' AS at
          FROM generate_series(1, %(count)s) g) each"""
DELIVERIES = """
INSERT INTO delivery (notification_id, channel, recipient, status, attempts, retry_count,
                      max_attempts, error_code, last_error, tenant_id, sent_at, created_at)
SELECT n.id, (ARRAY['EMAIL', 'SMS', 'SLACK', 'ALIMTALK'])[1 + n.g %% 4],
       '010' || lpad((n.g %% 30000)::text, 8, '0'), state.status, tries, tries - 1, 8,
       CASE WHEN state.status IN ('DEAD', 'HELD', 'FAILED')
            THEN (ARRAY['http_500', 'timeout', 'http_404', 'rejected'])[1 + n.g %% 4] END,
       CASE WHEN state.status IN ('DEAD', 'HELD', 'FAILED') THEN 'the other side said no' END,
       n.tenant_id, CASE WHEN state.status = 'SUCCESS' THEN n.created_at END, n.created_at
  FROM (SELECT *, row_number() OVER (ORDER BY id) AS g FROM notification) n
 CROSS JOIN generate_series(1, 2) copy
 CROSS JOIN LATERAL (SELECT CASE WHEN copy = 2 THEN 'SUCCESS' WHEN n.g %% 20 = 0 THEN 'DEAD'
                                 WHEN n.g %% 997 = 0 THEN 'HELD' WHEN n.g %% 499 = 0 THEN 'FAILED'
                                 WHEN n.g %% 251 = 0 THEN 'CANCELED' ELSE 'SUCCESS' END AS status,
                            CASE WHEN n.g %% 20 = 0 THEN 3 ELSE 1 END AS tries) state
 WHERE copy = 1 OR n.g %% 3 = 0"""
RARE = """
UPDATE notification SET source = 'rare', title = 'a needle'
 WHERE id = (SELECT id FROM notification ORDER BY id LIMIT 1)"""
ATTEMPTS = """
INSERT INTO delivery_attempt (delivery_id, attempt_no, started_at, finished_at, outcome,
                              http_status, error_code, response, worker)
SELECT d.id, number, d.created_at, d.created_at, CASE d.status WHEN 'SUCCESS' THEN 'DELIVERED'
       ELSE 'RETRY' END, CASE d.status WHEN 'SUCCESS' THEN 200 ELSE 500 END, d.error_code,
       repeat('answer ', 20), 'bench'
  FROM delivery d CROSS JOIN LATERAL generate_series(1, d.attempts) number"""
EVENTS = """
INSERT INTO outbox_messages (id, payload, topic, message_key, slot, status, error_message)
SELECT gen_random_uuid(), '{}', 'topic-' || g %% 10, 'key-' || g, g %% 64, 'DEAD',
       'MessageSendFailed: broker ' || g %% 7
  FROM generate_series(1, %(count)s / 20) g"""


def run(stage: Stage, *, count: int = 100_000, rounds: int = 20) -> Iterator[Figure]:
    """Each page's median and slowest answer, over a real socket."""
    stage.clear()
    with psycopg.connect(stage.url, autocommit=True) as connection:
        for statement in (NOTIFICATIONS, DELIVERIES, EVENTS):
            connection.execute(statement, {"count": count})
        for statement in (ATTEMPTS, RARE):
            connection.execute(statement)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    pages = _pages(stage)
    with stage.api() as base:
        for name, path in pages.items():
            took = [_timed(f"{base}/console{path}") for _ in range(rounds + 2)][2:]
            yield at_most(CASE, f"{name}, median", quantile(took, 0.5), "ms", WANTED_MS)
            yield at_most(CASE, f"{name}, slowest of {rounds}", max(took), "ms", WANTED_MS)


def _pages(stage: Stage) -> Mapping[str, str]:
    [(newest,)] = stage.fetch("SELECT id FROM notification ORDER BY id DESC LIMIT 1")
    return {
        "notifications": "/notifications",
        "notifications by phone": "/notifications?q=010-0000-1000",
        "notifications by a rare word": "/notifications?q=needle",
        "notifications by a frequent word": "/notifications?q=matters",
        "notifications by a rare source": "/notifications?source=rare",
        "notifications that failed": "/notifications?status=PARTIALLY_FAILED",
        "notifications cancelled": "/notifications?status=CANCELED",
        "notifications under way": "/notifications?status=PROCESSING",
        "notifications of none": "/notifications?status=SKIPPED&source=none",
        "notifications of a tenant": "/notifications?tenant=1",
        "notifications of a week": "/notifications?period=7d&channel=SMS",
        "one notification": f"/notifications/{newest}",
        "dead letters": "/dead-letters",
        "a group": "/dead-letters/group?status=DEAD&channel=EMAIL&error_code=http_500",
        "dead events": "/dead-letters/events?topic=topic-1",
        "a replay counted": "/dead-letters/replay?status=DEAD&count=1",
        "replays": "/dead-letters/replays",
    }


def _timed(url: str) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
        answer.read()
    return (time.perf_counter() - began) * 1000
