"""What goes wrong in a call, and leases that run out over one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from allim.base.errors import ConfigurationError, DatabaseUnavailable
from allim.channels.channel import Message
from allim.hub.status import DeliveryStatus
from allim.relay.lane import Lane
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.relay import Relay
from allim.relay.sender import RateLimit, SendingLimits
from allim.relay.wake import WakeSignal
from allim.relay.work import Work
from allim.testing.boxes import LANE
from allim.testing.memory_box import MemoryBox
from tests.relay.boxes import (
    a_box,
    fill,
    gaps_between,
    statuses,
    until_final,
)
from tests.relay.outside import EXACT, Outside, after, always, running
from tests.relay.virtual_time import in_virtual_time, until


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
async def test_where_nothing_goes_twice_no_more_is_claimed_than_may_be_under_way() -> None:
    box = a_box()
    outside = Outside(after(1e6), limits=SendingLimits(concurrency=4, at_most_once=True))
    fill(box, 50)

    async with running(box, outside):
        await until(lambda: statuses(box).count(DeliveryStatus.PROCESSING) >= 4)
        await asyncio.sleep(1.0)
        assert statuses(box).count(DeliveryStatus.PROCESSING) == 4


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
