"""What is said of a delivery while it is under way: a cancel, a receipt."""

from __future__ import annotations

from uuid import uuid4

import pytest

from allim.base.errors import Conflict
from allim.database.pool import Database
from allim.hub.status import DeliveryStatus
from allim.relay.outcomes import Outcome
from allim.testing.boxes import FAILED, LANE, WELL, Entry, complete_steps
from tests.hub.engine.harness import DatabaseHarness

BUSY = Outcome.snooze("target_busy", 5.0)
STEP: Entry = complete_steps([{"channel": "SLACK"}])[0]


@pytest.mark.parametrize("outcome", [FAILED, BUSY])
async def test_what_was_cancelled_under_way_is_not_tried_again(
    database: Database, outcome: Outcome
) -> None:
    harness = DatabaseHarness(database)
    notification = uuid4()
    under_way = await harness.add({"channel": LANE}, notification=notification)
    (work,) = await harness.claim_all()
    waiting = await harness.add({"channel": LANE}, notification=notification)
    await harness.operations.cancel(notification)
    assert (await harness.read(waiting)).status is DeliveryStatus.CANCELED
    assert (await harness.read(under_way)).status is DeliveryStatus.PROCESSING

    assert await harness.finish(work, outcome)

    assert (await harness.read(under_way)).status is DeliveryStatus.CANCELED


async def test_what_was_cancelled_under_way_and_arrives_has_arrived(database: Database) -> None:
    harness = DatabaseHarness(database)
    notification = uuid4()
    under_way = await harness.add({"channel": LANE}, notification=notification)
    (work,) = await harness.claim_all()
    await harness.add({"channel": LANE}, notification=notification)
    await harness.operations.cancel(notification)

    assert await harness.finish(work, WELL)

    assert (await harness.read(under_way)).status is DeliveryStatus.SUCCESS


async def test_a_cancel_that_comes_too_late_leaves_no_mark(database: Database) -> None:
    harness = DatabaseHarness(database)
    notification = uuid4()
    under_way = await harness.add({"channel": LANE}, notification=notification)
    (work,) = await harness.claim_all()
    with pytest.raises(Conflict):
        await harness.operations.cancel(notification)

    assert await harness.finish(work, FAILED)

    assert (await harness.read(under_way)).status is DeliveryStatus.FAILED


@pytest.mark.parametrize(
    "outcome", [FAILED, BUSY, Outcome.refused("gone"), Outcome.unknown("timeout")]
)
async def test_a_receipt_of_arrival_wins_over_what_the_relay_saw(
    database: Database, outcome: Outcome
) -> None:
    harness = DatabaseHarness(database)
    delivery = await harness.add({"channel": LANE, "then": [STEP], "fallback": [STEP]})
    (work,) = await harness.claim_all()
    assert await harness.box.record_provider_id([work], "G1")
    await harness.receive(delivery, "G1", "DELIVERED")

    assert await harness.finish(work, outcome)

    state = await harness.read(delivery)
    assert (state.status, state.superseded_by) == (DeliveryStatus.SUCCESS, None)
    assert [child.step for child in await harness.children(delivery)] == ["then"]
