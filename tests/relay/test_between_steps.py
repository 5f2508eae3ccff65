"""What comes between two steps: a stop, a cancel, a call that began before another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from allim.channels.channel import Message
from allim.hub.status import DeliveryStatus
from allim.relay.box import Claim
from allim.relay.breaker import BreakerLimits
from allim.relay.handling import Handling
from allim.relay.heartbeat import Heartbeat
from allim.relay.lane import Lane
from allim.relay.limits import RelayLimits
from allim.relay.observer import Silence
from allim.relay.outcomes import Outcome
from allim.relay.policy import OpenPolicy
from allim.relay.rates import LocalRates
from allim.relay.sender import SendingLimits
from allim.relay.single_pass import SinglePass
from allim.relay.targets import Target
from allim.relay.work import Work
from allim.testing.boxes import LANE
from allim.testing.clock import HandClock
from allim.testing.memory_box import MemoryBox
from tests.relay.boxes import FAILED, a_box, fill, statuses
from tests.relay.outside import EXACT, Outside, after, always, running
from tests.relay.virtual_time import in_virtual_time, loop_clock, until


class StuckBox(MemoryBox):
    """A box in which a second claim, or a rescue, hangs until `go` is set, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(clock=loop_clock)
        self.stuck, self.go = asyncio.Event(), asyncio.Event()
        self._error = error
        self._claims = 0

    async def claim(self, lane: str, **about: Any) -> Claim[Message]:
        self._claims += 1
        if self._claims == 2:
            await self._hang()
        return replace(await super().claim(lane, **about), look_again=True)

    async def rescue(self, lane: str, **about: Any) -> Sequence[Work[Message]]:
        lost = await super().rescue(lane, **about)
        if lost:
            await self._hang()
        return lost

    async def _hang(self) -> None:
        self.stuck.set()
        if self._error is not None:
            raise self._error
        await self.go.wait()


def handling(box: MemoryBox, outside: Outside) -> Handling[Message]:
    """What a relay does with its work, moved by hand."""
    return Handling(
        Lane(LANE, outside),
        box,
        worker="worker",
        limits=RelayLimits(),
        heartbeat=Heartbeat(box.lease_keeper(), lease=60.0, clock=loop_clock),
        rates=LocalRates(loop_clock),
        observer=Silence(),
        clock=loop_clock,
    )


@pytest.mark.parametrize("error", [None, ZeroDivisionError()], ids=["cancelled", "failed"])
@in_virtual_time
async def test_what_a_pass_had_claimed_is_released_when_its_next_claim_ends_it(
    error: Exception | None,
) -> None:
    box, outside = StuckBox(error), Outside()
    fill(box, 3)

    passing = asyncio.create_task(SinglePass(box, clock=loop_clock).run(Lane(LANE, outside), 10))
    await box.stuck.wait()
    if error is None:
        passing.cancel()
    await asyncio.wait([passing])

    assert passing.cancelled() is (error is None)
    assert not outside.calls
    assert set(statuses(box)) == {DeliveryStatus.PENDING}
    assert {d.error_code for d in box.deliveries.values()} == {"released"}


@in_virtual_time
async def test_what_has_not_begun_to_be_sent_is_released_by_a_stop() -> None:
    box, outside = a_box(), Outside()
    fill(box, 3)
    lane = handling(box, outside)
    lane.start()

    lane.begin(await lane.claim(10))
    await lane.stop(0.0)

    assert not outside.calls
    assert set(statuses(box)) == {DeliveryStatus.PENDING}
    assert lane.in_flight == 0


@in_virtual_time
async def test_what_comes_to_wait_for_a_place_while_a_relay_stops_is_released() -> None:
    class SlowGuard(OpenPolicy):
        asked, go = asyncio.Event(), asyncio.Event()

        async def guard(self, batch: Sequence[Work[Any]]) -> Mapping[int, Outcome]:
            if batch[0].content.recipient == "behind":
                self.asked.set()
                await self.go.wait()
            return {}

    box, guard = a_box(), SlowGuard()
    limits = SendingLimits(concurrency=1, per_target=1, at_most_once=True, retry=EXACT)
    outside = Outside(after(29.0), limits=limits)
    fill(box, 1)
    async with running(box, outside, policy=guard, grace=3.0) as relay:
        await until(lambda: outside.running == 1)
        (behind,) = fill(box, 1, "behind")
        relay.wake.wake({LANE})
        await guard.asked.wait()
        dispatch = relay.relay.lanes[0].dispatch
        stopping = asyncio.create_task(relay.stop())
        await until(lambda: dispatch.is_stopping)
        guard.go.set()
        await stopping

    assert len(outside.calls) == 1
    assert statuses(box, [behind]) == [DeliveryStatus.PENDING], "it was never sent"
    assert box.deliveries[behind].error_code == "released"


@in_virtual_time
async def test_what_is_rescued_while_a_relay_stops_is_left_to_the_next_one() -> None:
    box, outside = StuckBox(), Outside()
    fill(box, 1)
    dead = handling(box, outside)
    await dead.claim(10)
    await asyncio.sleep(61.0)
    lane = handling(box, outside)
    lane.start()
    rescuing = asyncio.create_task(lane.rescue(10))
    await box.stuck.wait()

    await lane.stop(0.0)
    box.go.set()

    assert not await rescuing
    assert lane.in_flight == 0
    await asyncio.sleep(1.0)
    assert not outside.asked


@pytest.mark.parametrize("late", [FAILED, Outcome.delivered(), Outcome.fault("bug")])
def test_while_one_call_tries_a_broken_target_older_ones_tell_nothing(late: Outcome) -> None:
    clock = HandClock()
    target: Target[str] = Target("example.com", 2, BreakerLimits(), clock)
    for _ in range(10):
        target.record([FAILED], 0.1)
    clock.turn(30.0)
    assert target.held_back() is None, "the call that tries"

    assert not target.record([late], 35.0, probes=False)
    assert target.held_back() is not None, "it is still on its way"
    assert target.record([Outcome.delivered()], 0.1)

    assert not target.is_open


@in_virtual_time
async def test_a_slow_call_that_began_before_does_not_speak_for_the_one_that_tries() -> None:
    slow, fast, well = after(35.0, FAILED), always(FAILED), after(10.0)
    calls = 0

    async def answer(work: Work[Message]) -> Outcome:
        nonlocal calls
        calls += 1
        return await (slow if calls == 1 else fast if calls <= 11 else well)(work)

    box = a_box()
    limits = SendingLimits(concurrency=32, per_target=32, call_timeout=50.0, retry=EXACT)
    outside = Outside(answer, limits=limits)
    began = loop_clock()
    fill(box, 11)
    async with running(box, outside) as relay:
        await until(lambda: relay.notes.breakers == [("kim", True)])
        fill(box, 1)
        relay.wake.wake({LANE})
        await until(lambda: relay.notes.breakers == [("kim", True), ("kim", False)])
        closed_after = loop_clock() - began

    assert closed_after < 50.0, "and not half a minute later"
