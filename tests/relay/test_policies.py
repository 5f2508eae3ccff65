"""What policies have to say before, at and after a send."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from allim.hub.status import DeliveryStatus
from allim.relay.outcomes import Outcome
from allim.relay.policy import OpenPolicy, combine
from allim.relay.settlement import Settlement
from allim.relay.work import Work
from tests.relay.boxes import (
    a_box,
    fill,
    until_final,
)
from tests.relay.outside import Outside, running
from tests.relay.virtual_time import in_virtual_time, until


class Guard(OpenPolicy):
    """A guard that does as it is told."""

    def __init__(self, against: Outcome | None = None, error: Exception | None = None) -> None:
        self.against = against
        self.error = error
        self.hangs = False

    async def guard(self, batch: Sequence[Work[Any]]) -> Mapping[int, Outcome]:
        if self.hangs:
            await asyncio.sleep(1e6)
        if self.error is not None:
            raise self.error
        return {work.id: self.against for work in batch if self.against}


@in_virtual_time
async def test_while_the_guard_fails_nothing_is_sent() -> None:
    guard = Guard(error=ZeroDivisionError())
    box, outside = a_box(), Outside()
    (delivery,) = fill(box, 1, max_attempts=1)

    async with running(box, outside, policy=guard):
        await until(lambda: box.deliveries[delivery].attempts == 3)
        assert outside.calls == []
        assert box.deliveries[delivery].attempt_log[0].error_code == "guard_failed"
        guard.error = None
        await until_final(box)

    assert box.deliveries[delivery].status is DeliveryStatus.SUCCESS
    assert len(outside.calls) == 1


@in_virtual_time
async def test_a_guard_that_hangs_does_not_hold_its_work_for_ever() -> None:
    guard = Guard()
    guard.hangs = True
    box, outside = a_box(), Outside()
    (delivery,) = fill(box, 1)

    async with running(box, outside, policy=guard):
        await until(lambda: box.deliveries[delivery].error_code == "guard_failed")
        assert outside.calls == []
        guard.hangs = False
        await until_final(box)

    assert box.deliveries[delivery].status is DeliveryStatus.SUCCESS


@pytest.mark.parametrize(
    ("against", "status"),
    [
        (Outcome.skip("cancelled"), DeliveryStatus.SKIPPED),
        (Outcome.snooze("quiet_hours", 3600.0), DeliveryStatus.PENDING),
        (Outcome.refused("gone"), DeliveryStatus.DEAD),
    ],
)
@in_virtual_time
async def test_what_the_guard_is_against_is_not_sent(
    against: Outcome, status: DeliveryStatus
) -> None:
    box, outside = a_box(), Outside()
    (delivery,) = fill(box, 1)

    async with running(box, outside, policy=Guard(against)):
        await until(lambda: box.deliveries[delivery].error_code == against.code)

    assert box.deliveries[delivery].status is status
    assert outside.calls == []


@in_virtual_time
async def test_what_is_refused_at_the_claim_is_dead_without_a_call() -> None:
    class Poor(OpenPolicy):
        async def on_attempt(self, tx: Any, batch: Sequence[Work[Any]]) -> Mapping[int, Outcome]:
            return {
                work.id: Outcome.refused("insufficient_balance") for work in batch if work.id % 2
            }

    box, outside = a_box(), Outside()
    ids = fill(box, 10)

    async with running(box, outside, policy=Poor()):
        await until_final(box)

    dead = [number for number in ids if box.deliveries[number].status is DeliveryStatus.DEAD]
    assert dead == [number for number in ids if number % 2]
    assert sorted(number for call in outside.calls for number in call.ids) == [
        number for number in ids if not number % 2
    ]


@in_virtual_time
async def test_a_policy_that_breaks_settling_leaves_its_work_to_the_rescue() -> None:
    class Broken(OpenPolicy):
        broken = True

        async def on_settle(self, tx: Any, settled: Sequence[Settlement[Any]]) -> None:
            if self.broken:
                raise ZeroDivisionError

    box, outside, policy = a_box(), Outside(), Broken()
    (delivery,) = fill(box, 1)

    async with running(box, outside, policy=policy):
        await until(lambda: len(outside.calls) == 1)
        await asyncio.sleep(1.0)
        assert box.deliveries[delivery].status is DeliveryStatus.PROCESSING
        assert box.deliveries[delivery].attempt_log[0].outcome is None
        policy.broken = False
        await until_final(box)

    assert box.deliveries[delivery].status is DeliveryStatus.SUCCESS


@in_virtual_time
async def test_policies_in_a_row_are_asked_until_one_objects() -> None:
    first = Guard(Outcome.skip("cancelled"))
    second = Guard(Outcome.refused("never asked"))
    box, outside = a_box(), Outside()
    (delivery,) = fill(box, 1)

    async with running(box, outside, policy=combine([first, second])):
        await until_final(box)

    assert combine([]) is None
    assert combine([first]) is first
    assert box.deliveries[delivery].error_code == "cancelled"
