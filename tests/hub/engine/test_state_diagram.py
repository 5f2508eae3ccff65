"""Every edge of the diagram of delivery states, and no other.

Each verb is tried on a delivery in each state. What the diagram does not name changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import pytest

from allim.base.errors import Conflict
from allim.channels.channel import Message
from allim.hub.status import DeliveryStatus as Is
from allim.relay.outcomes import Outcome
from allim.relay.work import Work
from allim.testing.boxes import FAILED, LANE, REFUSED, WELL
from tests.hub.engine.harness import DatabaseHarness

ACCEPTED = Outcome.accepted(provider_id="p-1")
LATER = Outcome.snooze("later", 600.0)
LOST = Outcome.cut_short("lease_expired")

EDGES: Mapping[str, Mapping[Is, Is]] = {
    "claim when due": {Is.PENDING: Is.PROCESSING, Is.FAILED: Is.PROCESSING},
    "complete": {Is.PROCESSING: Is.SUCCESS},
    "accept": {Is.PROCESSING: Is.ACCEPTED},
    "retry": {Is.PROCESSING: Is.FAILED},
    "snooze": {Is.PROCESSING: Is.PENDING},
    "skip": {Is.PROCESSING: Is.SKIPPED},
    "bury": {Is.PROCESSING: Is.DEAD},
    "hold": {Is.PROCESSING: Is.HELD},
    "rescue": {Is.PROCESSING: Is.PROCESSING},
    "cancel": {Is.PENDING: Is.CANCELED, Is.FAILED: Is.CANCELED},
    "expire": {Is.PENDING: Is.EXPIRED, Is.FAILED: Is.EXPIRED},
    "receipt of arrival": {Is.ACCEPTED: Is.SUCCESS},
    "receipt of failure": {Is.ACCEPTED: Is.DEAD},
    "no receipt in 72 hours": {Is.ACCEPTED: Is.SUCCESS},
    "replay": {Is.DEAD: Is.PENDING, Is.SKIPPED: Is.PENDING, Is.HELD: Is.PENDING},
    "discard": {Is.DEAD: Is.CANCELED, Is.SKIPPED: Is.CANCELED, Is.HELD: Is.CANCELED},
}

WAYS: Mapping[Is, Outcome | None] = {
    Is.PENDING: LATER,
    Is.PROCESSING: None,
    Is.SUCCESS: Outcome.delivered(provider_id="p-1"),
    Is.ACCEPTED: ACCEPTED,
    Is.FAILED: FAILED,
    Is.DEAD: REFUSED,
    Is.SKIPPED: Outcome.skip("cancelled"),
    Is.HELD: LOST,
    Is.CANCELED: LATER,
    Is.EXPIRED: LATER,
}


class Stage:
    """One delivery, brought into a state, and what may be done to it."""

    work: Work[Message]

    def __init__(self, harness: DatabaseHarness, delivery: int) -> None:
        self.harness = harness
        self.delivery = delivery

    @classmethod
    async def set(cls, harness: DatabaseHarness, state: Is) -> Stage:
        delivery = await harness.add({"channel": LANE}, expires_in=3600.0)
        stage = cls(harness, delivery)
        stage.work = await harness.claim_one()
        await harness.box.record_provider_id([stage.work], "p-1")
        if (outcome := WAYS[state]) is not None:
            assert await harness.finish(stage.work, outcome, at_most_once=state is Is.HELD)
        if state is Is.CANCELED:
            await stage.cancel()
        if state is Is.EXPIRED:
            await stage.expire()
        assert (await harness.read(delivery)).status is state
        return stage

    async def settle(self, outcome: Outcome, *, at_most_once: bool = False) -> None:
        await self.harness.finish(self.work, outcome, at_most_once=at_most_once)

    async def claim(self) -> None:
        await self.harness.make_due()
        await self.harness.claim_all()

    async def rescue(self) -> None:
        await self.harness.lapse_leases()
        await self.harness.box.rescue(LANE, limit=10, lease=60.0, worker="rescuer")

    async def cancel(self) -> None:
        await self.harness.cancel(self.work.content.notification_id)

    async def expire(self) -> None:
        await self.harness.pass_expiry()
        await self.harness.box.expire()

    async def receive(self, receipt: str) -> None:
        await self.harness.receive(
            self.delivery, "p-1", "DELIVERED" if receipt == "DELIVERED" else "FAILED"
        )

    async def wait_for_receipt_in_vain(self) -> None:
        async with self.harness.database.connection() as connection:
            await connection.execute(
                "UPDATE delivery SET sent_at = now() - interval '73 hours'"
                " WHERE sent_at IS NOT NULL"
            )
        await self.harness.box.expire()

    async def replay(self) -> None:
        with suppress(Conflict):
            await self.harness.operations.retry(self.delivery)

    async def discard(self) -> None:
        with suppress(Conflict):
            await self.harness.operations.discard(self.delivery, "no use")


VERBS: Mapping[str, Callable[[Stage], Awaitable[None]]] = {
    "claim when due": Stage.claim,
    "complete": lambda stage: stage.settle(WELL),
    "accept": lambda stage: stage.settle(ACCEPTED),
    "retry": lambda stage: stage.settle(FAILED),
    "snooze": lambda stage: stage.settle(LATER),
    "skip": lambda stage: stage.settle(Outcome.skip("cancelled")),
    "bury": lambda stage: stage.settle(REFUSED),
    "hold": lambda stage: stage.settle(LOST, at_most_once=True),
    "rescue": Stage.rescue,
    "cancel": Stage.cancel,
    "expire": Stage.expire,
    "receipt of arrival": lambda stage: stage.receive("DELIVERED"),
    "receipt of failure": lambda stage: stage.receive("FAILED"),
    "no receipt in 72 hours": Stage.wait_for_receipt_in_vain,
    "replay": Stage.replay,
    "discard": Stage.discard,
}


def test_the_diagram_names_every_state_and_verb() -> None:
    assert set(WAYS) == set(Is)
    assert set(VERBS) == set(EDGES)


@pytest.mark.parametrize("verb", EDGES)
async def test_a_verb_follows_its_edges_and_no_other(harness: DatabaseHarness, verb: str) -> None:
    for state in Is:
        stage = await Stage.set(harness, state)

        await VERBS[verb](stage)

        after = await harness.read(stage.delivery)
        assert after.status is EDGES[verb].get(state, state), f"{verb} on {state}"
        assert after.claimed == (after.status is Is.PROCESSING)
        async with harness.database.connection() as connection:
            await connection.execute("TRUNCATE delivery, delivery_attempt, notification")


async def test_a_success_nobody_reported_says_so(harness: DatabaseHarness) -> None:
    delivery = await harness.add_one()
    work = await harness.claim_one()
    await harness.finish(work, Outcome.accepted())
    stage = Stage(harness, delivery)

    await stage.wait_for_receipt_in_vain()

    state = await harness.read(delivery)
    assert (state.status, state.receipt_status) == ("SUCCESS", "UNKNOWN")
