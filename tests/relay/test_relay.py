"""The relay as a whole: claims, sends, settles, waits and stops, on a box in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from allim.base.errors import ConfigurationError, DatabaseUnavailable
from allim.channels.channel import Message
from allim.hub.status import DeliveryStatus
from allim.relay.box import Claim
from allim.relay.lane import Lane
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.policy import ChannelPolicy, OpenPolicy, combine
from allim.relay.rates import LocalRates
from allim.relay.relay import Relay
from allim.relay.sender import RateLimit, SendingLimits
from allim.relay.settlement import Settlement
from allim.relay.wake import WakeSignal
from allim.relay.work import Work
from allim.testing.boxes import LANE
from allim.testing.memory_box import MemoryBox
from tests.relay.outside import EXACT, Outside, after, always, running, well
from tests.relay.virtual_time import in_virtual_time, loop_clock, until

FINAL = {
    DeliveryStatus.SUCCESS,
    DeliveryStatus.DEAD,
    DeliveryStatus.SKIPPED,
    DeliveryStatus.HELD,
    DeliveryStatus.CANCELED,
}
FAILED = Outcome.retry("http_500", http_status=500)


def a_box() -> MemoryBox:
    return MemoryBox(clock=loop_clock)


def fill(box: MemoryBox, count: int, recipient: str = "kim", **fields: Any) -> list[int]:
    return [box.add(LANE, recipient=recipient, **fields) for _ in range(count)]


def statuses(box: MemoryBox, ids: Sequence[int] | None = None) -> list[DeliveryStatus]:
    return [box.deliveries[number].status for number in ids or box.deliveries]


def gaps_between(times: Sequence[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise(times)]


async def until_final(box: MemoryBox, ids: Sequence[int] | None = None) -> None:
    await until(lambda: set(statuses(box, ids)) <= FINAL)


# Sending


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


# Targets


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


# What goes wrong in a call


@in_virtual_time
async def test_a_call_that_hangs_is_cut_and_counts() -> None:
    box = a_box()
    outside = Outside(after(1e6), limits=SendingLimits(call_timeout=5.0, retry=EXACT))
    (delivery,) = fill(box, 1, max_attempts=2)

    async with running(box, outside):
        await until_final(box)

    lengths = [(call.ended or 0.0) - call.began for call in outside.calls]
    assert lengths == [pytest.approx(5.0)] * 2
    log = box.deliveries[delivery].attempt_log
    assert [(a.outcome, a.error_code) for a in log] == [(OutcomeKind.RETRY, "timeout")] * 2


@in_virtual_time
async def test_a_call_that_hangs_is_held_where_it_must_not_go_twice() -> None:
    box = a_box()
    limits = SendingLimits(call_timeout=5.0, at_most_once=True, retry=EXACT)
    outside = Outside(after(1e6), limits=limits)
    (delivery,) = fill(box, 1)

    async with running(box, outside):
        await until_final(box)

    assert box.deliveries[delivery].status is DeliveryStatus.HELD
    assert len(outside.calls) == 1


@in_virtual_time
async def test_an_end_nobody_knows_spends_a_retry_and_waits() -> None:
    box, outside = a_box(), Outside(always(Outcome.unknown("timeout_after_data")))
    (delivery,) = fill(box, 1, max_attempts=3)

    async with running(box, outside):
        await until_final(box)

    gaps = gaps_between(outside.times())
    assert gaps == [pytest.approx(60.0, abs=1.0), pytest.approx(120.0, abs=1.0)]
    assert box.deliveries[delivery].status is DeliveryStatus.DEAD


@in_virtual_time
async def test_a_sender_that_raises_is_our_fault_and_spends_nothing() -> None:
    async def answer(work: Work[Message]) -> Outcome:
        if work.attempt_no < 4:
            raise ZeroDivisionError
        return Outcome.delivered()

    box, outside = a_box(), Outside(answer)
    (delivery,) = fill(box, 1, max_attempts=1)

    async with running(box, outside):
        await until_final(box)

    done = box.deliveries[delivery]
    assert (done.status, done.retry_count, done.attempts) == (DeliveryStatus.SUCCESS, 0, 4)
    assert [a.error_code for a in done.attempt_log[:3]] == ["internal_error"] * 3


@in_virtual_time
async def test_a_database_gone_during_a_send_spends_nothing() -> None:
    async def answer(work: Work[Message]) -> Outcome:
        if work.attempt_no == 1:
            raise DatabaseUnavailable("gone")
        return Outcome.delivered()

    box, outside = a_box(), Outside(answer)
    (delivery,) = fill(box, 1, max_attempts=1)

    async with running(box, outside):
        await until_final(box)

    done = box.deliveries[delivery]
    assert (done.status, done.retry_count) == (DeliveryStatus.SUCCESS, 0)
    assert done.attempt_log[0].error_code == "database_unavailable"


@in_virtual_time
async def test_a_sender_that_answers_too_little_is_our_fault_and_not_asked_again_at_once() -> None:
    class Short(Outside):
        async def send(self, batch: Any, record: Any) -> Sequence[Outcome]:
            await super().send(batch, record)
            return []

    box, outside = a_box(), Short()
    (delivery,) = fill(box, 1)

    async with running(box, outside):
        await until(lambda: len(outside.calls) == 3)

    gaps = gaps_between(outside.times())
    assert gaps == [pytest.approx(60.0, abs=1.0), pytest.approx(120.0, abs=1.0)]
    assert box.deliveries[delivery].retry_count == 0


@in_virtual_time
async def test_a_sender_without_a_target_leaves_nothing_claimed_for_ever() -> None:
    class Aimless(Outside):
        def target(self, content: Message) -> str:
            if content.recipient is None:
                raise ZeroDivisionError
            return content.recipient

    box, outside = a_box(), Aimless()
    lost = box.add(LANE)
    good = fill(box, 5)

    async with running(box, outside):
        await until_final(box, good)
        await until(lambda: box.deliveries[lost].status is DeliveryStatus.PENDING)

    assert box.deliveries[lost].error_code == "internal_error"
    assert box.deliveries[lost].retry_count == 0


@in_virtual_time
async def test_a_line_that_breaks_leaves_nothing_claimed_for_ever() -> None:
    class Broken:
        def __init__(self) -> None:
            self.errors: list[Exception] = [ZeroDivisionError(), DatabaseUnavailable("gone")]

        async def reserve(self, key: str, rate: RateLimit, count: int) -> Sequence[float]:
            if self.errors:
                raise self.errors.pop()
            return [0.0] * count

    box = a_box()
    outside = Outside(limits=SendingLimits(rate=RateLimit(1.0), retry=EXACT))
    (delivery,) = fill(box, 1)

    async with running(box, outside, rates=Broken()):
        await until_final(box)

    done = box.deliveries[delivery]
    assert (done.status, done.retry_count) == (DeliveryStatus.SUCCESS, 0)
    codes = [attempt.error_code for attempt in done.attempt_log]
    assert codes == ["database_unavailable", "internal_error", None]


# Leases


@in_virtual_time
async def test_no_call_is_begun_that_could_outlive_its_lease() -> None:
    box = a_box()
    limits = SendingLimits(concurrency=1, per_target=1, call_timeout=3.0, retry=EXACT)
    outside = Outside(after(2.9), limits=limits)
    fill(box, 30)

    # The heart beats in real time: in this one no lease is ever extended.
    async with running(box, outside, lease=10.0, patience=1e6, rescue_every=1e6):
        await until_final(box)

    for call in outside.calls:
        assert call.began + 3.0 < min(call.deadlines)
    late = [
        a
        for d in box.deliveries.values()
        for a in d.attempt_log
        if a.error_code == "lease_too_short"
    ]
    assert late, "some waited too long, and were given back"
    assert all(delivery.retry_count == 0 for delivery in box.deliveries.values())


def test_a_call_longer_than_its_lease_is_refused_at_the_start() -> None:
    outside = Outside(limits=SendingLimits(call_timeout=60.0))

    with pytest.raises(ConfigurationError, match="no call may outlive its lease"):
        Relay(MemoryBox(), [Lane("LOG", outside)], wake=WakeSignal())


@in_virtual_time
async def test_what_a_lost_relay_had_claimed_is_rescued_and_sent_again() -> None:
    box, outside = a_box(), Outside()
    (delivery,) = fill(box, 1)
    await box.claim(LANE, limit=10, lease=60.0, worker="lost", policy=None)

    async with running(box, outside) as relay:
        await until_final(box)

    assert outside.asked == [delivery]
    done = box.deliveries[delivery]
    assert (done.status, done.retry_count, relay.notes.rescues) == (DeliveryStatus.SUCCESS, 0, 1)
    assert [a.error_code for a in done.attempt_log] == ["lease_expired", None]


@in_virtual_time
async def test_what_is_found_to_have_arrived_is_not_sent_again() -> None:
    async def arrived(work: Work[Message]) -> Outcome:
        return Outcome.delivered(provider_id="p-1")

    box, outside = a_box(), Outside()
    outside.fate = arrived
    (delivery,) = fill(box, 1)
    await box.claim(LANE, limit=10, lease=60.0, worker="lost", policy=None)

    async with running(box, outside):
        await until_final(box)

    assert outside.calls == []
    assert box.deliveries[delivery].provider_id == "p-1"


@in_virtual_time
async def test_a_rescue_is_held_where_it_must_not_go_twice() -> None:
    box = a_box()
    outside = Outside(limits=SendingLimits(at_most_once=True))
    (delivery,) = fill(box, 1)
    await box.claim(LANE, limit=10, lease=60.0, worker="lost", policy=None)

    async with running(box, outside):
        await until_final(box)

    assert outside.calls == []
    assert box.deliveries[delivery].status is DeliveryStatus.HELD


@in_virtual_time
async def test_not_knowing_is_never_taken_for_not_sent() -> None:
    answers = iter([True, True, False])

    async def fate(work: Work[Message]) -> Outcome | None:
        if next(answers):
            raise TimeoutError
        return Outcome.delivered()

    box, outside = a_box(), Outside()
    outside.fate = fate
    (delivery,) = fill(box, 1)
    await box.claim(LANE, limit=10, lease=60.0, worker="lost", policy=None)

    async with running(box, outside):
        await until_final(box)

    assert outside.asked == [delivery] * 3
    assert outside.calls == []
    assert box.deliveries[delivery].status is DeliveryStatus.SUCCESS


@in_virtual_time
async def test_what_kills_whoever_asks_about_it_is_buried_in_the_end() -> None:
    async def fate(work: Work[Message]) -> Outcome | None:
        raise TimeoutError

    box, outside = a_box(), Outside()
    outside.fate = fate
    (delivery,) = fill(box, 1)
    await box.claim(LANE, limit=10, lease=60.0, worker="lost", policy=None)

    async with running(box, outside):
        await until_final(box)

    assert len(outside.asked) == 20
    assert box.deliveries[delivery].error_code == "crash_loop"


# The box out of reach


class CountingBox(MemoryBox):
    """A box that counts claims and may be out of reach."""

    def __init__(self) -> None:
        super().__init__(clock=loop_clock)
        self.claims: list[float] = []
        self.error: Exception | None = None

    async def claim(
        self,
        lane: str,
        *,
        limit: int,
        lease: float,
        worker: str,
        policy: ChannelPolicy[Message] | None,
    ) -> Claim[Message]:
        self.claims.append(loop_clock())
        if self.error is not None:
            raise self.error
        return await super().claim(lane, limit=limit, lease=lease, worker=worker, policy=policy)

    async def next_due(self, lane: str) -> float | None:
        if self.error is not None:
            raise self.error
        return await super().next_due(lane)


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


# Stopping


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


# Policies


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


# Children


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
