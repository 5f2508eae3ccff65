"""What operators look for is found by indexes, in bounded steps, among what is finished.

Thirty thousand notifications; what a step reads must not grow with them, whether the planner
knows the values or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from allim.bench.consoling import ATTEMPTS, DELIVERIES, NOTIFICATIONS
from allim.hub.audit import SQL as AUDIT
from allim.hub.dead_letters import SQL as DEAD
from allim.hub.finding import SQL as FINDING
from allim.hub.reading import (
    SQL,
    DeliveryFilter,
    NotificationFilter,
    _deliveries_statement,
    _notifications_statement,
)
from allim.hub.replays import SQL as REPLAYS
from allim.hub.replays import ReplayFilter, parameters_of
from allim.hub.status import DeliveryStatus, NotificationStatus
from allim.messaging.tracing import spellings
from tests.conftest import a_database
from tests.hub.engine.test_plans import explain, found

COUNT = 30_000
STEP = {"before": None, "scan": 51, "limit": 51}
JUDGED = {"before": None, "scan": 500, "limit": 51}
Asked = tuple[LiteralString, Mapping[str, Any]]


def notifications(step: Mapping[str, Any], **wanted: Any) -> Asked:
    statement, parameters = _notifications_statement(NotificationFilter(**wanted))
    return statement, {**parameters, **step}


def deliveries(step: Mapping[str, Any], **wanted: Any) -> Asked:
    statement, parameters, _ = _deliveries_statement(DeliveryFilter(**wanted))
    return statement, {**parameters, **step}


HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
DISCARD: Mapping[str, Any] = {
    **parameters_of(ReplayFilter(error_code="rejected"), None),
    "statuses": ["DEAD"],
    "channel": "ALIMTALK",
    "codeless": False,
    "after": 0,
    "up_to": 1 << 40,
    "limit": 500,
}
ASKED: Mapping[str, tuple[Asked, int]] = {
    "the newest": (notifications(STEP), 1_000),
    "words": (notifications(JUDGED, q="nothing like it"), 1_000),
    "a source": (notifications(JUDGED, source="none"), 1_000),
    "completed": (notifications(JUDGED, status=[NotificationStatus.COMPLETED]), 6_000),
    "failed": (notifications(JUDGED, status=[NotificationStatus.FAILED]), 8_000),
    "cancelled, lately": (
        notifications(JUDGED, status=[NotificationStatus.CANCELED], since=HOUR_AGO),
        4_000,
    ),
    "what is unfinished": ((SQL["unfinished"], {"most": 2001}), 6_000),
    "some by id": (
        notifications(JUDGED, ids=[uuid4() for _ in range(2000)], q="x"),
        10_000,
    ),
    "a phone": (
        (SQL["to_recipients"], {"recipients": spellings("010-0000-1000"), "most": 4001}),
        200,
    ),
    "a frequent recipient": (notifications(JUDGED, recipient="ops", channel="SLACK"), 6_000),
    "a channel": (notifications(JUDGED, channel="NONE"), 4_000),
    "deliveries to somebody": (deliveries(STEP, recipient="ops"), 1_500),
    "dead deliveries to somebody": (deliveries(JUDGED, recipient="ops", status=["DEAD"]), 4_000),
    "a tenant": (notifications(STEP, tenant_id=2), 1_500),
    "dead deliveries": (deliveries(STEP, status=[DeliveryStatus.DEAD]), 2_500),
    "a rare error": (
        deliveries(JUDGED, status=[DeliveryStatus.DEAD], error_code="none"),
        6_000,
    ),
    "deliveries of a channel": (deliveries(JUDGED, channel="NONE"), 1_000),
    "deliveries of a provider's id": (deliveries(STEP, provider_id="none"), 100),
    "deliveries of a message's id": (deliveries(STEP, provider_message_id="none"), 100),
    "groups": ((DEAD["groups"], {"groups": 200, "most": 10_001}), 4_000),
    "a group": (
        (
            DEAD["members"],
            {
                "status": "DEAD",
                "channel": "ALIMTALK",
                "code": "rejected",
                "before": None,
                "limit": 51,
            },
        ),
        600,
    ),
    "what a discard takes": (
        (DEAD["next"].replace("{fitting}", REPLAYS["fitting"]), DISCARD),
        6_000,
    ),
    "by number": ((FINDING["by_delivery"], {"id": 7}), 20),
    "by a word": ((FINDING["by_word"], {"word": "none"}), 40),
    "a recipient": ((FINDING["is_recipient"], {"word": "01000001000"}), 40),
    "actions": ((AUDIT["about"], {"subjects": ["delivery 1"], "limit": 200}), 40),
}


@pytest.fixture(scope="module")
def filled_url(template_url: str) -> Iterator[str]:
    """A database as the bench fills it."""
    with a_database(template_url) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in (NOTIFICATIONS, DELIVERIES):
                connection.execute(statement, {"count": COUNT})
            connection.execute(ATTEMPTS.replace("%%", "%"))
            connection.execute("UPDATE delivery SET recipient = 'ops' WHERE channel = 'SLACK'")
            connection.execute("VACUUM ANALYZE notification, delivery, delivery_attempt")
        yield url


@pytest.fixture
async def connection(filled_url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A connection as the pool's are, in a transaction that is rolled back."""
    async with await AsyncConnection.connect(filled_url) as connection:
        yield connection
        await connection.rollback()


@pytest.mark.parametrize("generic", [True, False], ids=["generic plan", "custom plan"])
@pytest.mark.parametrize("name", ASKED)
async def test_a_listing_reads_no_more_than_its_step(
    connection: AsyncConnection[TupleRow], name: str, generic: bool
) -> None:
    (statement, parameters), most = ASKED[name]
    if generic:
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")

    plan = await explain(
        connection,
        statement,
        parameters,
        generic=generic,
        options="ANALYZE, BUFFERS, FORMAT JSON",
    )

    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert pages <= most, (pages, sorted(set(found(plan, "Index Name"))))
    scanned = [
        node["Relation Name"]
        for node in _nodes(plan)
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] != "audit_log"
    ]
    assert scanned == []


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
