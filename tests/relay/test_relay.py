"""The relay as a whole: a box out of reach, stopping, and what follows."""

from __future__ import annotations

import asyncio

import pytest

from allim.base.errors import DatabaseUnavailable
from allim.channels.channel import Message
from allim.hub.status import DeliveryStatus
from allim.relay.lane import Lane
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.relay import Relay
from allim.relay.sender import SendingLimits
from allim.relay.wake import WakeSignal
from allim.relay.work import Work
from allim.testing.boxes import LANE
from tests.relay.boxes import (
    CountingBox,
    a_box,
    fill,
    statuses,
    until_final,
)
from tests.relay.outside import EXACT, Outside, after, running, well
from tests.relay.virtual_time import in_virtual_time, loop_clock, until


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), ZeroDivisionError()])
@in_virtual_time
async def test_a_claim_that_fails_is_tried_again_and_does_not_spin(error: Exception) -> None:
    box, outside = CountingBox(), Outside()
    box.error = error
    fill(box, 5)

    async with running(box, outside):
        await asyncio.sleep(60.0)
        assert 25 <= len(box.claims) <= 50
        box.error = None
        await until_final(box)

    assert all(delivery.attempts == 1 for delivery in box.deliveries.values())


@in_virtual_time
async def test_one_lanes_end_by_a_bug_ends_them_all_in_order() -> None:
    class Buggy(CountingBox):
        async def next_due(self, lane: str) -> float | None:
            if lane == "BUGGY":
                raise ZeroDivisionError
            return await super().next_due(lane)

    box, outside = Buggy(), Outside(after(10.0))
    (delivery,) = fill(box, 1)
    relay = Relay(
        box,
        [Lane(LANE, outside), Lane("BUGGY", outside)],
        wake=WakeSignal(),
        clock=loop_clock,
    )

    with pytest.raises(ZeroDivisionError):
        await relay.run()

    assert box.deliveries[delivery].status is DeliveryStatus.SUCCESS


@in_virtual_time
async def test_a_stop_finishes_what_runs_and_releases_what_does_not() -> None:
    box = a_box()
    outside = Outside(after(5.0), limits=SendingLimits(concurrency=2, per_target=2, retry=EXACT))
    fill(box, 20)

    async with running(box, outside, patience=1000.0) as relay:
        await until(lambda: outside.running == 2)
        await asyncio.sleep(1.0)
        began = loop_clock()
        await relay.stop()
        took = loop_clock() - began

    assert took <= 5.0
    assert len(outside.calls) == 2
    assert statuses(box).count(DeliveryStatus.SUCCESS) == 2
    assert statuses(box).count(DeliveryStatus.PENDING) == 18
    released = [d for d in box.deliveries.values() if d.error_code == "released"]
    assert len(released) == 6, "what was claimed and not begun"
    assert all(d.retry_count == 0 and (d.next_retry_at or 0.0) <= loop_clock() for d in released)


@pytest.mark.parametrize(
    ("at_most_once", "status"), [(False, DeliveryStatus.PENDING), (True, DeliveryStatus.HELD)]
)
@in_virtual_time
async def test_a_call_that_outlasts_the_grace_is_cut_and_spends_nothing(
    at_most_once: bool, status: DeliveryStatus
) -> None:
    box = a_box()
    limits = SendingLimits(at_most_once=at_most_once, retry=EXACT)
    outside = Outside(after(29.0), limits=limits)
    (delivery,) = fill(box, 1)

    async with running(box, outside, grace=3.0) as relay:
        await until(lambda: outside.running == 1)
        began = loop_clock()
        await relay.stop()
        took = loop_clock() - began

    assert took <= 6.0
    left = box.deliveries[delivery]
    assert (left.status, left.retry_count, left.error_code) == (status, 0, "shutdown")
    assert left.attempt_log[0].outcome is OutcomeKind.UNKNOWN


@in_virtual_time
async def test_a_stop_before_the_run_ends_it_at_once() -> None:
    relay = Relay(a_box(), [Lane(LANE, Outside())], wake=WakeSignal(), clock=loop_clock)
    relay.stop()

    await relay.run()


@in_virtual_time
async def test_what_follows_goes_its_way_through_the_same_relay() -> None:
    async def answer(work: Work[Message]) -> Outcome:
        return Outcome.refused("no") if work.content.recipient == "kim" else await well(work)

    box, outside = a_box(), Outside(answer)
    box.add(
        LANE,
        recipient="kim",
        fallback=[{"channel": LANE, "recipient": "lee", "then": [{"channel": LANE}]}],
    )

    async with running(box, outside):
        await until(lambda: len(box.deliveries) == 3)
        await until_final(box)

    assert [call.target for call in outside.calls] == ["kim", "lee", "lee"]
