"""An acceptance whose receipt never comes is a success in the end, receipt unknown."""

from __future__ import annotations

from allim.database.pool import Database
from allim.hub.status import DeliveryStatus
from allim.relay.outcomes import Outcome
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import decide
from tests.hub.engine.harness import DatabaseHarness


async def test_what_was_accepted_72_hours_ago_counts_as_delivered_and_its_steps_run(
    database: Database,
) -> None:
    harness = DatabaseHarness(database)
    old, young = [
        await harness.add(
            {"channel": "SMS", "then": [{"channel": "LOG", "payload": {}, "max_attempts": 8}]}
        )
        for _ in range(2)
    ]
    claim = await harness.box.claim("SMS", limit=10, lease=60, worker="w", policy=None)
    accepted = [
        decide(work, Outcome.accepted(provider_id=f"G{work.id}"), RetryPolicy())
        for work in claim.works
    ]
    await harness.box.settle(accepted, None)
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE delivery SET sent_at = now() - interval '73 hours' WHERE id = %s", [old]
        )

    await harness.box.expire()

    state = await harness.read(old)
    assert state.status is DeliveryStatus.SUCCESS
    assert state.receipt_status == "UNKNOWN"
    assert [child.channel for child in await harness.children(old)] == ["LOG"]
    assert (await harness.read(young)).status is DeliveryStatus.ACCEPTED
    assert await harness.children(young) == []
