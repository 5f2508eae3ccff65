"""Senders that can be asked: what nobody saw the end of is never settled by a guess."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from allim.base.errors import DatabaseUnavailable
from allim.channels.channel import Message
from allim.hub.status import DeliveryStatus
from allim.relay.outcomes import Outcome
from allim.relay.sender import SendingLimits
from allim.relay.work import Work
from allim.testing.memory_box import MemoryBox
from tests.relay.outside import EXACT, Answer, Outside, always, running
from tests.relay.virtual_time import in_virtual_time, loop_clock, until

LANE = "LOG"
ASKED = SendingLimits(retry=EXACT, can_be_asked=True)
HOUR = 3600.0


def a_box() -> tuple[MemoryBox, int]:
    box = MemoryBox(clock=loop_clock)
    return box, box.add(LANE, recipient="kim", fallback=[{"channel": "EMAIL", "max_attempts": 8}])


async def until_settled(box: MemoryBox, delivery: int) -> DeliveryStatus:
    await until(lambda: box.deliveries[delivery].status is not DeliveryStatus.PROCESSING)
    return box.deliveries[delivery].status


def raising(error: Exception) -> Answer:
    async def answer(work: Work[Message]) -> Outcome:
        raise error

    return answer


async def hanging(work: Work[Message]) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize(
    "answer",
    [
        always(Outcome.unknown("timeout")),
        hanging,
        raising(DatabaseUnavailable("gone")),
        raising(ZeroDivisionError()),
    ],
)
@in_virtual_time
async def test_a_call_without_an_end_is_asked_for_and_not_repeated(answer: Answer) -> None:
    box, delivery = a_box()
    outside = Outside(answer, limits=ASKED)

    async def fate(work: Work[Message]) -> Outcome | None:
        # Nobody answers for a while.
        if len(outside.asked) < 4:
            raise TimeoutError
        return Outcome.accepted(provider_id="G1")

    outside.fate = fate

    async with running(box, outside, lease=48 * HOUR):
        await until(lambda: bool(outside.asked))
        status = await until_settled(box, delivery)

    assert status is DeliveryStatus.ACCEPTED
    assert (len(outside.calls), len(outside.asked)) == (1, 4)
    assert len(box.deliveries) == 1, "no fallback"


@in_virtual_time
async def test_what_was_certainly_not_sent_is_sent_again() -> None:
    box, delivery = a_box()
    outside = Outside(always(Outcome.unknown("timeout")), limits=ASKED)

    async def fate(work: Work[Message]) -> Outcome | None:
        outside.answer = always(Outcome.delivered())
        return Outcome.snooze("not_sent", 0.0)

    outside.fate = fate

    async with running(box, outside, lease=48 * HOUR):
        await until(lambda: box.deliveries[delivery].status is DeliveryStatus.SUCCESS)

    assert len(outside.calls) == 2
    assert box.deliveries[delivery].retry_count == 0


@in_virtual_time
async def test_who_never_answers_leaves_it_to_an_operator_and_starts_no_fallback() -> None:
    box, delivery = a_box()
    outside = Outside(always(Outcome.unknown("timeout")), limits=ASKED)
    outside.fate = always(Outcome.unknown("timeout"))

    seldom: dict[str, Any] = {"poll_max_deaf": HOUR, "rescue_every": HOUR, "expire_every": HOUR}
    async with running(box, outside, lease=48 * HOUR, **seldom):
        began = loop_clock()
        while box.deliveries[delivery].status is not DeliveryStatus.HELD:
            await asyncio.sleep(HOUR / 2)
        assert 24 * HOUR <= loop_clock() - began <= 26 * HOUR

    assert box.deliveries[delivery].error_code == "outcome_unknown"
    assert len(box.deliveries) == 1
    assert len(outside.calls) == 1
    assert len(outside.asked) < 2000, "more and more slowly"


@in_virtual_time
async def test_relays_that_keep_dying_over_it_leave_it_to_an_operator() -> None:
    box, delivery = a_box()
    outside = Outside(limits=ASKED)
    await box.claim(LANE, limit=10, lease=1.0, worker="lost", policy=None)
    for _ in range(20):
        await asyncio.sleep(1.1)
        await box.rescue(LANE, limit=10, lease=1.0, worker="lost")

    async with running(box, outside):
        await until_settled(box, delivery)

    assert (outside.calls, outside.asked) == ([], [])
    found = box.deliveries[delivery]
    assert (found.status, found.error_code) == (DeliveryStatus.HELD, "crash_loop")


@in_virtual_time
async def test_a_relay_that_stops_leaves_the_doubt_to_the_next_one() -> None:
    box, delivery = a_box()
    outside = Outside(always(Outcome.unknown("timeout")), limits=ASKED)
    outside.fate = always(Outcome.unknown("timeout"))
    async with running(box, outside):
        await until(lambda: bool(outside.asked))
    assert box.deliveries[delivery].status is DeliveryStatus.PROCESSING

    outside.fate = always(Outcome.accepted(provider_id="G1"))
    async with running(box, outside):
        status = await until_settled(box, delivery)

    assert status is DeliveryStatus.ACCEPTED
    assert len(outside.calls) == 1
