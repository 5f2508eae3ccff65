"""Prometheus's own Alertmanager against Allim's own programs, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from allim.testing.http import HttpSink
from tests.ingest.alertmanager_process import alertmanager, free_port, now, until
from tests.programs import Start
from tests.requirements import needs_program

KEY = "a-very-long-secret-1"
CONFIG = """
route:
  receiver: allim
  group_by: [alertname]
  group_wait: 50ms
  group_interval: 500ms
  repeat_interval: 500ms
receivers:
  - name: allim
    webhook_configs:
      - url: {url}/ingest/alertmanager
        send_resolved: true
        http_config:
          authorization:
            credentials: {key}
"""
SENT = "alertmanager_notifications_total"
FAILED = "alertmanager_notification_requests_failed_total"


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    needs_program("prometheus-alertmanager", "alertmanager")


@pytest.fixture
async def sink() -> AsyncIterator[HttpSink]:
    async with HttpSink() as sink:
        yield sink


def heard(sink: HttpSink) -> list[tuple[str, str]]:
    """What arrived: each alert's turn and name."""
    return [
        (alert["turn"], alert["name"])
        for request in sink.requests
        for alert in request.json["data"]["alerts"]
    ]


def an_alert(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "labels": {"alertname": name, "severity": "critical"},
        "annotations": {"summary": f"{name} 발생"},
        **fields,
    }


async def all_settled(database_url: str) -> bool:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT bool_and(status = 'SUCCESS') FROM delivery")
        return await cursor.fetchone() == (True,)


async def test_nothing_is_lost_and_nothing_doubled(
    place: Path, start: Start, sink: HttpSink, database_url: str
) -> None:
    port = free_port()
    deliveries = [{"channel": "WEBHOOK", "recipient": f"{sink.url}/hook"}]

    async def allim() -> Any:
        return await start(
            "up",
            DATABASE_URL=database_url,
            ALLIM_PORT=str(port),
            ALLIM_API_KEYS=f"alertmanager:{KEY}:send",
            ALLIM_SSRF_ALLOW="127.0.0.0/8",
            INGEST_ROUTES=json.dumps([{"name": "all", "deliveries": deliveries}]),
        )

    running = await allim()
    config = CONFIG.format(url=f"http://127.0.0.1:{port}", key=KEY)
    async with alertmanager(config, place) as prometheus:
        began = now()
        await prometheus.post(an_alert("DiskFull", startsAt=began))
        await sink.received(1)
        # It repeats the group again and again, and each of its calls is answered well.
        await prometheus.counts(SENT, 3)
        assert heard(sink) == [("FIRING", "DiskFull")]
        assert await prometheus.count(FAILED) == 0

        await prometheus.post(an_alert("DiskFull", startsAt=began, endsAt=now()))
        await sink.received(2)
        assert heard(sink)[1:] == [("RESOLVED", "DiskFull")]

        # Killed between a call and its settle, a relay leaves a delivery that is sent once more.
        await until(lambda: all_settled(database_url), "what was sent to be settled")
        await running.kill()
        await prometheus.post(an_alert("LinkDown", startsAt=now()))
        await prometheus.counts(FAILED, 2)
        running = await allim()
        await sink.received(3)
        await prometheus.counts(SENT, 3)
        assert heard(sink)[2:] == [("FIRING", "LinkDown")]
