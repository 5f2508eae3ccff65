"""Cancelling, settling and receipts at the same moment, over many connections."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from allim.base.errors import Conflict
from allim.base.ids import uuid7
from allim.database.pool import Database
from allim.hub.delivery_box import DeliveryBox
from allim.hub.operations import Operations
from allim.hub.status import DeliveryStatus
from allim.relay.outcomes import Outcome
from allim.relay.settlement import decide
from allim.testing.boxes import LANE, LEASE, REFUSED, RETRY, WELL
from tests.hub.engine.harness import DatabaseHarness

CHILD = {"channel": LANE, "max_attempts": 8}
ROUNDS = 15


async def at_once(*moves: Coroutine[Any, Any, Any]) -> list[Any]:
    """Make these moves at the same moment; a conflict is an answer."""
    answers = await asyncio.gather(*moves, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, Conflict):
            raise answer
    return list(answers)


@pytest.mark.parametrize("outcome", [WELL, REFUSED])
async def test_no_child_outlives_a_cancel(harness: DatabaseHarness, outcome: Outcome) -> None:
    for _ in range(ROUNDS):
        notification = uuid7()
        parents = [
            await harness.add(
                {"channel": LANE, "then": [CHILD], "fallback": [CHILD]}, notification=notification
            )
            for _ in range(3)
        ]
        works = await harness.claim_all()
        waiting = await harness.add({"channel": LANE}, notification=notification)

        await at_once(
            harness.cancel(notification),
            harness.box.settle([decide(work, outcome, RETRY) for work in works], None),
            harness.cancel(notification),
        )

        assert (await harness.read(waiting)).status == "CANCELED"
        for parent in parents:
            (child,) = await harness.children(parent)
            assert child.status == "CANCELED"


async def test_a_settle_and_a_receipt_at_once_end_the_delivery_once(
    harness: DatabaseHarness,
) -> None:
    for _ in range(ROUNDS):
        delivery = await harness.add({"channel": LANE, "then": [CHILD]})
        work = await harness.claim_one()
        await harness.box.record_provider_id([work], "p-1")

        await at_once(
            harness.finish(work, Outcome.accepted()),
            harness.receive(delivery, "p-1", "DELIVERED"),
            harness.receive(delivery, "p-1", "DELIVERED"),
        )

        state = await harness.read(delivery)
        assert (state.status, state.receipt_status) == ("SUCCESS", "DELIVERED")
        (child,) = await harness.children(delivery)
        assert (await harness.claim_one()).id == child.id


async def test_a_settle_and_a_rescue_at_once_have_one_winner(harness: DatabaseHarness) -> None:
    for _ in range(ROUNDS):
        delivery = await harness.add({"channel": LANE, "fallback": [CHILD]})
        work = await harness.claim_one()
        await harness.lapse_leases()

        landed, rescued = await at_once(
            harness.finish(work, REFUSED),
            harness.box.rescue(LANE, limit=10, lease=LEASE, worker="rescuer"),
        )

        assert landed != bool(rescued)
        assert len(await harness.children(delivery)) == landed
        for one in rescued:
            assert await harness.finish(one, REFUSED)
        (child,) = await harness.children(delivery)
        assert (await harness.send(child.id, WELL)).status == "SUCCESS"


async def test_an_operator_and_a_settle_at_once_do_not_wait_for_each_other_in_a_circle(
    harness: DatabaseHarness,
) -> None:
    for _ in range(ROUNDS):
        parent = await harness.add({"channel": LANE, "fallback": [CHILD, CHILD]})
        await harness.send(parent, REFUSED)
        child = await harness.claim_one()

        await at_once(
            harness.finish(child, REFUSED),
            harness.operations.retry(parent),
            harness.operations.retry(parent),
        )

        states = await harness.states("id >= %(id)s", parent)
        statuses = [state.status for state in states]
        assert statuses.count(DeliveryStatus.PENDING) == 1, statuses
        await harness.claim_all()


async def test_many_relays_settle_cancel_and_extend_without_deadlock(
    database: Database, harness: DatabaseHarness
) -> None:
    notifications = [uuid7() for _ in range(10)]
    for number in range(200):
        await harness.add(
            {"channel": LANE, "then": [CHILD] if number % 2 else []},
            notification=notifications[number % 10],
        )
    operations = Operations(database)

    async def relay() -> None:
        box = DeliveryBox(database)
        keeper = box.lease_keeper()
        while claim := await box.claim(LANE, limit=9, lease=LEASE, worker="w", policy=None):
            if not claim.works:
                break
            await asyncio.gather(
                asyncio.to_thread(keeper.extend, claim.works, LEASE),
                box.settle([decide(work, WELL, RETRY) for work in reversed(claim.works)], None),
            )
        keeper.close()

    await at_once(
        *(relay() for _ in range(3)),
        *(operations.cancel(notification) for notification in notifications[:5]),
    )

    while works := await harness.claim_all():
        await harness.box.settle([decide(work, WELL, RETRY) for work in works], None)
    states = await harness.states("true")
    assert {state.status for state in states} <= {DeliveryStatus.SUCCESS, DeliveryStatus.CANCELED}
    for state in states:
        assert len(await harness.attempts(state.id)) == state.attempts
