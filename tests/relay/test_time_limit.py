"""The time limit of calls: each has its own time, however many there are."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allim.relay.time_limit import TimeLimit
from tests.relay.virtual_time import in_virtual_time, loop_clock

SECONDS = 5.0


async def _call(limit: TimeLimit, seconds: float) -> str:
    with limit.call():
        await asyncio.sleep(seconds)
    return "in time"


@in_virtual_time
async def test_a_call_in_time_is_left_alone() -> None:
    limit = TimeLimit(SECONDS)
    assert [await _call(limit, seconds) for seconds in (0.0, 4.9)] == ["in time"] * 2


@in_virtual_time
async def test_a_call_that_takes_longer_is_cut_when_its_time_is_over() -> None:
    began = loop_clock()
    with pytest.raises(TimeoutError):
        await _call(TimeLimit(SECONDS), 100.0)
    assert loop_clock() - began == pytest.approx(SECONDS)


@in_virtual_time
async def test_no_timer_outlives_the_calls() -> None:
    began = loop_clock()
    await _call(TimeLimit(SECONDS), 1.0)
    loop = asyncio.get_running_loop()
    # The loop of these tests jumps to the next timer while a thread works.
    await loop.run_in_executor(None, lambda: None)
    assert loop_clock() - began == pytest.approx(1.0)


@in_virtual_time
async def test_a_cancellation_from_outside_stays_one() -> None:
    task = asyncio.create_task(_call(TimeLimit(SECONDS), 100.0))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@in_virtual_time
async def test_a_cancellation_in_the_moment_the_time_is_over_is_not_lost() -> None:
    task = asyncio.create_task(_call(TimeLimit(SECONDS), 100.0))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(SECONDS, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@in_virtual_time
async def test_a_call_that_ends_well_although_it_was_cut_ended_well() -> None:
    limit = TimeLimit(SECONDS)
    task = asyncio.current_task()
    assert task is not None
    with limit.call():
        try:
            await asyncio.sleep(100.0)
        except asyncio.CancelledError:
            said = "done all the same"
    assert said == "done all the same"
    assert task.cancelling() == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 12).map(lambda half: half + 0.5)),
        min_size=1,
        max_size=20,
    )
)
def test_calls_side_by_side_end_as_with_a_timeout_of_their_own(
    calls: list[tuple[int, float]],
) -> None:
    async def one(limit: TimeLimit, start: float, seconds: float) -> tuple[float, bool]:
        await asyncio.sleep(start)
        began = loop_clock()
        try:
            await _call(limit, seconds)
        except TimeoutError:
            return loop_clock() - began, False
        return loop_clock() - began, True

    @in_virtual_time
    async def run() -> None:
        limit = TimeLimit(SECONDS)
        ends = await asyncio.gather(*(one(limit, *call) for call in calls))
        for (_, seconds), (took, in_time) in zip(calls, ends, strict=True):
            assert in_time == (seconds < SECONDS)
            assert took == pytest.approx(min(seconds, SECONDS))

    run()
