"""Places in line."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allim.relay.rates import HORIZON_SECONDS, OVERFLOW_LIMIT_SECONDS, LocalRates, Overflow
from allim.relay.sender import RateLimit
from allim.testing.clock import HandClock

SLACK = RateLimit(per_second=1.0)


async def test_one_a_second_means_a_second_between() -> None:
    rates = LocalRates(HandClock())

    assert await rates.reserve("hook", SLACK, 3) == [0.0, 1.0, 2.0]
    assert await rates.reserve("hook", SLACK, 1) == [3.0]
    assert await rates.reserve("another hook", SLACK, 1) == [0.0]


async def test_a_burst_goes_at_once_and_is_earned_again_by_waiting() -> None:
    clock = HandClock()
    rates = LocalRates(clock)
    rate = RateLimit(per_second=2.0, burst=3)

    assert await rates.reserve("api", rate, 5) == [0.0, 0.0, 0.0, 0.5, 1.0]
    clock.turn(1.5)
    assert await rates.reserve("api", rate, 1) == [0.0]
    clock.turn(1000.0)
    assert await rates.reserve("api", rate, 4) == [0.0, 0.0, 0.0, 0.5]


async def test_no_place_is_given_beyond_the_horizon() -> None:
    rates = LocalRates(HandClock())

    first = await rates.reserve("hook", SLACK, 1000)
    then = await rates.reserve("hook", SLACK, 1000)

    assert first == [float(second) for second in range(61)]
    assert then == []


@given(
    st.floats(0.05, 50.0),
    st.integers(1, 10),
    st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(1, 40)), max_size=15),
)
def test_no_stretch_of_time_has_more_calls_than_the_rate_allows(
    per_second: float, burst: int, asks: list[tuple[float, int]]
) -> None:
    clock = HandClock()
    rates = LocalRates(clock)
    rate = RateLimit(per_second, burst)
    turns: list[float] = []

    async def ask_all() -> None:
        for pause, count in asks:
            clock.turn(pause)
            places = await rates.reserve("key", rate, count)
            assert len(places) <= count
            assert all(0.0 <= place <= HORIZON_SECONDS for place in places)
            turns.extend(clock() + place for place in places)

    asyncio.run(ask_all())
    assert turns == sorted(turns)
    for at, began in enumerate(turns):
        for length, ended in enumerate(turns[at:], start=1):
            assert length <= burst + (ended - began) * per_second + 1e-3


def test_who_finds_no_place_is_told_ever_later_times_up_to_a_limit() -> None:
    overflow = Overflow(HandClock())

    waits = [overflow.ask_again_in("hook", SLACK) for _ in range(700)]

    assert waits[0] == pytest.approx(HORIZON_SECONDS / 2 + 1.0)
    assert waits[:500] == sorted(waits[:500])
    assert max(waits) <= OVERFLOW_LIMIT_SECONDS
    assert min(waits[600:]) >= OVERFLOW_LIMIT_SECONDS / 2
