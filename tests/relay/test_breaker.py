"""The circuit breaker."""

from __future__ import annotations

import pytest

from allim.relay.breaker import Breaker, BreakerLimits
from allim.testing.clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def breaker(clock: HandClock) -> Breaker:
    return Breaker(BreakerLimits(), clock)


def record(breaker: Breaker, *results: bool) -> list[bool]:
    return [breaker.record(failed=failed) for failed in results]


def opened(breaker: Breaker) -> Breaker:
    record(breaker, *[True] * 10)
    return breaker


def test_it_opens_at_seven_of_ten(breaker: Breaker) -> None:
    assert record(breaker, *[False] * 3, *[True] * 6) == [False] * 9
    assert not breaker.is_open

    assert breaker.record(failed=True)

    assert breaker.is_open
    assert breaker.seconds_left() == 30.0


def test_fewer_than_ten_calls_say_nothing(breaker: Breaker) -> None:
    record(breaker, *[True] * 9)

    assert not breaker.is_open
    assert breaker.wait() == 0.0


def test_a_smaller_share_does_not_open_it(breaker: Breaker) -> None:
    record(breaker, *[False, True, True] * 100)

    assert not breaker.is_open


def test_a_success_never_opens_it(breaker: Breaker) -> None:
    record(breaker, *[True] * 9)

    assert not breaker.record(failed=False)
    assert breaker.record(failed=True)


def test_it_forgets_after_five_minutes(breaker: Breaker, clock: HandClock) -> None:
    record(breaker, *[True] * 9)
    clock.turn(331.0)

    record(breaker, True)

    assert not breaker.is_open


def test_after_the_pause_one_call_tries(breaker: Breaker, clock: HandClock) -> None:
    opened(breaker)
    assert breaker.wait() == 30.0
    clock.turn(29.0)
    assert breaker.wait() == 1.0

    clock.turn(1.0)

    assert breaker.seconds_left() == 0.0
    assert breaker.wait() == 0.0
    assert breaker.wait() > 0.0
    assert breaker.is_open


def test_a_probe_that_succeeds_closes_it(breaker: Breaker, clock: HandClock) -> None:
    opened(breaker)
    clock.turn(30.0)
    breaker.wait()

    breaker.record(failed=False)

    assert not breaker.is_open
    assert not any(record(breaker, *[True] * 9)), "it began to count anew"


def test_a_probe_that_fails_keeps_it_open(breaker: Breaker, clock: HandClock) -> None:
    opened(breaker)
    clock.turn(30.0)
    breaker.wait()

    breaker.record(failed=True)

    assert breaker.wait() == 30.0


def test_an_abandoned_probe_leaves_its_place_to_the_next(
    breaker: Breaker, clock: HandClock
) -> None:
    opened(breaker)
    clock.turn(30.0)
    breaker.wait()

    breaker.abandon_probe()

    assert breaker.wait() == 0.0


@pytest.mark.parametrize("failed", [True, False])
def test_calls_that_began_before_it_opened_do_not_move_it(
    breaker: Breaker, clock: HandClock, failed: bool
) -> None:
    opened(breaker)
    clock.turn(10.0)

    breaker.record(failed=failed)

    assert breaker.wait() == 20.0
