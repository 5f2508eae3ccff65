"""What stands around the sending: spot notices, warnings, long transactions, documents."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.messaging import enqueue
from allim.messaging.alerts import BalanceAlerts
from allim.messaging.job import job_schema, make_job
from allim.messaging.ledger import Low
from allim.messaging.settings import BalanceSettings
from allim.messaging.spot import watch_spot
from allim.testing.http import Answer, HttpSink
from tests.messaging.conftest import Queues, make_consumer
from tests.messaging.test_consumer import a_job, running, until

ROOT = Path(__file__).parents[2]


async def test_a_spot_notice_stops_the_worker_once() -> None:
    stopped: list[str] = []
    async with HttpSink() as sink:
        sink.answer(
            Answer.of(200, "token-1"),
            Answer.of(404, ""),
            Answer.of(401, ""),
            Answer.of(200, "token-2"),
            Answer.of(500, ""),
            Answer.of(200, '{"action": "terminate", "time": "2026-11-21T08:22:00Z"}'),
        )
        async with asyncio.timeout(60):
            await watch_spot(sink.url, lambda: stopped.append("stop"), every=0.01)
        asked = [(request.method, request.path) for request in sink.requests]
    assert stopped == ["stop"]
    notice = ("GET", "/latest/meta-data/spot/instance-action")
    token = ("PUT", "/latest/api/token")
    assert asked == [token, notice, notice, token, notice, notice]


async def test_a_low_balance_becomes_a_notification_where_a_channel_is_named(
    database: Database, channels: Mapping[str, Channel]
) -> None:
    settings = Environment({"MESSAGING_ALERT_CHANNEL": "log"}).read(BalanceSettings)
    warn = BalanceAlerts(settings, channels)
    async with database.transaction() as tx:
        await warn(tx, Low(3, "튼튼의원", 120, 1000, refused=2))
    rows = await database.fetch(
        "SELECT n.type, n.title, n.message, n.tenant_id, d.channel"
        "  FROM notification n JOIN delivery d ON d.notification_id = n.id"
    )
    ((kind, title, message, tenant, channel),) = rows
    assert (kind, title, tenant, channel) == ("LOW_BALANCE", "잔액 부족: 튼튼의원", None, "LOG")
    assert "120원" in message
    assert "2건" in message
    with pytest.raises(ConfigurationError, match="MESSAGING_ALERT_CHANNEL"):
        BalanceAlerts(
            Environment({"MESSAGING_ALERT_CHANNEL": "pigeon"}).read(BalanceSettings), channels
        )


async def test_a_job_stays_in_hand_while_storing_it_takes_longer_than_its_visibility(
    database: Database, database_url: str, queues: Queues, channels: Mapping[str, Channel]
) -> None:
    consumer = make_consumer(database, queues, channels)
    await queues.put(a_job(job_id="slow"))

    async def in_hand() -> bool:
        return consumer.taken.received == 1

    async def stored() -> bool:
        return consumer.taken.stored == 1

    async with await psycopg.AsyncConnection.connect(database_url) as blocker:
        await blocker.execute("LOCK TABLE notification IN ACCESS EXCLUSIVE MODE")
        async with running(consumer):
            await until(in_hand)
            visibility = queues.settings.messaging_sqs_visibility_seconds
            stolen = await queues.jobs.receive(wait=2 * visibility, visibility=1)
            await blocker.rollback()
            await until(stored)
    assert stolen == []
    assert consumer.taken.received == 1


def test_the_published_schema_is_that_of_the_code() -> None:
    published = json.loads((ROOT / "docs/reference/message-job.schema.json").read_text())
    assert published == job_schema()


@pytest.mark.parametrize("page", ["queue-texts-on-sqs", "cancel-reservations"])
def test_the_code_of_the_pages_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queued: list[dict[str, Any]] = []

    def queue(**fields: Any) -> str:
        queued.append(fields)
        return make_job(**fields).identified().job_id or ""

    monkeypatch.setattr(enqueue, "enqueue_sms", queue)
    text = (ROOT / "docs/how-to" / f"{page}.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})
    assert [fields["reservation_id"] for fields in queued] == [123]
