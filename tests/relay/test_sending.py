"""What a relay sends, when, and to which target."""

from __future__ import annotations

import asyncio

import pytest

from allim.channels.channel import Message
from allim.hub.status import DeliveryStatus
from allim.relay.outcomes import Outcome
from allim.relay.rates import LocalRates
from allim.relay.sender import RateLimit, SendingLimits
from allim.relay.work import Work
from allim.testing.boxes import LANE
from tests.relay.boxes import (
    FAILED,
    CountingBox,
    a_box,
    fill,
    gaps_between,
    statuses,
    until_final,
)
from tests.relay.outside import EXACT, Outside, after, always, running
from tests.relay.virtual_time import in_virtual_time, loop_clock, until


@in_virtual_time
async def test_everything_is_sent_once() -> None:
    box, outside = a_box(), Outside()
    ids = fill(box, 1000)

    async with running(box, outside):
        await until_final(box)

    assert set(statuses(box)) == {DeliveryStatus.SUCCESS}
    assert sorted(number for call in outside.calls for number in call.ids) == ids


@in_virtual_time
async def test_new_work_is_sent_at_once_when_the_lane_is_woken() -> None:
    box, outside = a_box(), Outside()
    async with running(box, outside, poll_max=300.0, poll_max_deaf=300.0) as relay:
        await asyncio.sleep(3600.0)
        began = loop_clock()

        fill(box, 1)
        relay.wake.wake({LANE})
        await until_final(box)

    assert outside.times() == [began]


@in_virtual_time
async def test_an_idle_lane_polls_ever_more_slowly() -> None:
    box, outside = CountingBox(), Outside()

    async with running(box, outside, poll_max_deaf=0.5):
        await asyncio.sleep(600.0)

    assert 1100 <= len(box.claims) <= 1300


@in_virtual_time
async def test_a_lane_wakes_for_timed_work() -> None:
    box, outside = a_box(), Outside()
    began = loop_clock()
    box.add(LANE, recipient="kim", due_in=0.2)
    async with running(box, outside, poll_max=300.0, poll_max_deaf=300.0):
        await until_final(box)

    assert outside.times() == [pytest.approx(began + 0.2, abs=0.005)]


@in_virtual_time
async def test_due_work_that_somebody_holds_is_no_busy_loop() -> None:
    class HeldBox(CountingBox):
        async def next_due(self, lane: str) -> float | None:
            return 0.0

    box = HeldBox()
    async with running(box, Outside()):
        await asyncio.sleep(60.0)

    assert len(box.claims) <= 60.0 / 0.05 + 10


@in_virtual_time
async def test_no_more_calls_run_at_once_than_allowed() -> None:
    box = a_box()
    outside = Outside(after(1.0), limits=SendingLimits(concurrency=6, per_target=2, retry=EXACT))
    for target in "abcdefgh":
        fill(box, 10, target)

    async with running(box, outside):
        await until_final(box)

    assert outside.most_running == 6
    for target in "abcdefgh":
        calls = [call for call in outside.calls if call.target == target]
        for call in calls:
            overlapping = [c for c in calls if c.began <= call.began < (c.ended or 0.0)]
            assert len(overlapping) <= 2


@in_virtual_time
async def test_a_lane_claims_no_more_than_it_can_send_soon() -> None:
    box = a_box()
    fill(box, 500)
    outside = Outside(after(1.0), limits=SendingLimits(concurrency=4, per_target=4, retry=EXACT))
    most = 0

    async with running(box, outside, patience=1000.0):
        while DeliveryStatus.PENDING in statuses(box):
            most = max(most, statuses(box).count(DeliveryStatus.PROCESSING))
            await asyncio.sleep(0.25)

    assert 4 < most <= 16


@in_virtual_time
async def test_a_batch_goes_to_one_target() -> None:
    box = a_box()
    outside = Outside(limits=SendingLimits(batch=10, retry=EXACT))
    for target in "ab":
        fill(box, 25, target)

    async with running(box, outside):
        await until_final(box)

    assert set(statuses(box)) == {DeliveryStatus.SUCCESS}
    for call in outside.calls:
        assert len(call.ids) <= 10
        assert {box.deliveries[number].message.recipient for number in call.ids} == {call.target}
    assert len(outside.calls) < 10


@in_virtual_time
async def test_retries_follow_the_back_off_to_the_dead_letter() -> None:
    box, outside = a_box(), Outside(always(FAILED))
    (delivery,) = fill(box, 1, max_attempts=4)

    async with running(box, outside):
        await until_final(box)

    gaps = gaps_between(outside.times())
    assert gaps == [pytest.approx(wait, abs=1.0) for wait in (60.0, 120.0, 240.0)]
    dead = box.deliveries[delivery]
    assert (dead.status, dead.retry_count, dead.attempts) == (DeliveryStatus.DEAD, 4, 4)


@in_virtual_time
async def test_new_work_is_not_starved_by_a_backlog_of_retries_on_the_narrowest_lane() -> None:
    box = a_box()
    outside = Outside(after(1.0), limits=SendingLimits(concurrency=1, per_target=1, retry=EXACT))
    fill(box, 300, "old", due_in=-1.0)
    new = fill(box, 10, "new")

    async with running(box, outside, patience=1000.0):
        await until_final(box, new)
        left = statuses(box).count(DeliveryStatus.PENDING)

    assert left > 200


@in_virtual_time
async def test_a_hanging_target_does_not_slow_another() -> None:
    async def answer(work: Work[Message]) -> Outcome:
        if work.content.recipient == "bad":
            await asyncio.sleep(1e6)
        return Outcome.delivered()

    box = a_box()
    outside = Outside(answer, limits=SendingLimits(concurrency=8, retry=EXACT))
    fill(box, 200, "bad")
    good = fill(box, 200, "good")
    began = loop_clock()

    async with running(box, outside, grace=0.1):
        await until_final(box, good)
        took = loop_clock() - began

    # Twenty-odd looks of a second's patience; a call to the bad one takes thirty.
    assert took < 30.0


@in_virtual_time
async def test_a_rate_is_shared_by_relays_that_share_its_line() -> None:
    box = a_box()
    limits = SendingLimits(rate=RateLimit(per_second=1.0), retry=EXACT)
    one, two = Outside(limits=limits), Outside(limits=limits)
    fill(box, 100, "hook")
    rates = LocalRates(loop_clock)

    async with running(box, one, rates=rates), running(box, two, rates=rates):
        await until_final(box)

    times = sorted(one.times() + two.times())
    assert len(times) == 100
    gaps = gaps_between(times)
    assert min(gaps) >= 0.9
    assert times[-1] - times[0] <= 200.0, "and yet the line moves"


@in_virtual_time
async def test_another_sides_word_for_its_limit_is_no_place_in_ours() -> None:
    told = iter([Outcome.retry("rate_limited", http_status=429)] * 20)

    async def answer(work: Work[Message]) -> Outcome:
        return next(told, Outcome.delivered())

    box = a_box()
    limits = SendingLimits(rate=RateLimit(per_second=1.0), retry=EXACT)
    outside = Outside(answer, limits=limits)
    fill(box, 40, "hook")

    async with running(box, outside):
        await until_final(box)

    gaps = gaps_between(outside.times())
    assert min(gaps) >= 0.9


@in_virtual_time
async def test_a_breaker_opens_at_seven_of_ten_and_lets_one_call_try() -> None:
    ill = True

    async def answer(work: Work[Message]) -> Outcome:
        await asyncio.sleep(0.1)
        return FAILED if ill else Outcome.delivered()

    box = a_box()
    outside = Outside(answer, limits=SendingLimits(concurrency=1, per_target=1, retry=EXACT))
    fill(box, 100, max_attempts=50)
    began = loop_clock()

    async with running(box, outside, patience=1000.0) as relay:
        await until(lambda: bool(relay.notes.breakers))
        assert len(outside.calls) == 10
        assert relay.notes.breakers == [("kim", True)]
        await until(lambda: loop_clock() > began + 100.0)
        assert 12 <= len(outside.calls) <= 14, "one probe in thirty seconds"
        ill = False
        await until_final(box)
        assert relay.notes.breakers[-1] == ("kim", False)

    log = [attempt for delivery in box.deliveries.values() for attempt in delivery.attempt_log]
    assert any(attempt.error_code == "circuit_open" for attempt in log)
    failed = sum(attempt.error_code == "http_500" for attempt in log)
    assert failed == sum(delivery.retry_count for delivery in box.deliveries.values())


@in_virtual_time
async def test_while_its_only_target_is_closed_a_lane_claims_nothing() -> None:
    box = CountingBox()
    outside = Outside(
        always(FAILED), limits=SendingLimits(concurrency=4, retry=EXACT), only_target="kim"
    )
    fill(box, 200, max_attempts=50)

    async with running(box, outside) as relay:
        await until(lambda: bool(relay.notes.breakers))
        await asyncio.sleep(1.0)
        claims = len(box.claims)
        await asyncio.sleep(25.0)

        assert len(box.claims) == claims
        assert DeliveryStatus.PENDING in statuses(box)


@in_virtual_time
async def test_too_many_requests_pause_one_target_only() -> None:
    paused: list[float] = []

    async def answer(work: Work[Message]) -> Outcome:
        if work.content.recipient == "busy" and not paused:
            paused.append(loop_clock())
            return Outcome.retry("rate_limited", http_status=429, retry_after=20.0)
        return Outcome.delivered()

    box = a_box()
    outside = Outside(answer, limits=SendingLimits(concurrency=8, per_target=1, retry=EXACT))
    fill(box, 20, "busy")
    other = fill(box, 20, "other")

    async with running(box, outside):
        await until_final(box, other)
        assert loop_clock() - paused[0] < 1.0
        await until_final(box)

    later = [began for began in outside.times("busy") if began > paused[0]]
    assert min(later) >= paused[0] + 20.0
    assert len(later) == 20
