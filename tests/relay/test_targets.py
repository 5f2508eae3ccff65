"""The targets of a lane."""

from __future__ import annotations

import pytest

from allim.relay.breaker import BreakerLimits
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.targets import PAUSE_LIMIT_SECONDS, TARGETS_KEPT, Target, Targets
from allim.relay.work import Work
from allim.testing.clock import HandClock

FAILED = Outcome.retry("http_500", http_status=500)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def target(clock: HandClock) -> Target[str]:
    return Target("example.com", 2, BreakerLimits(), clock)


def work(number: int) -> Work[str]:
    return Work(number, "token", 1, 0, 8, 0, 1e9, "content")


def test_too_many_requests_pause_but_are_no_failure(target: Target[str], clock: HandClock) -> None:
    for _ in range(20):
        target.record([Outcome.retry("rate_limited", http_status=429, retry_after=7.0)], 0.1)

    assert not target.is_open
    assert target.seconds_closed() == 7.0
    held = target.held_back()
    assert held is not None
    assert (held.kind, held.code) == (OutcomeKind.SNOOZED, "target_paused")

    clock.turn(7.0)
    assert target.held_back() is None


def test_no_answer_pauses_for_hours(target: Target[str]) -> None:
    target.record([Outcome.retry("rate_limited", http_status=429, retry_after=1e6)], 0.1)

    assert target.seconds_closed() == PAUSE_LIMIT_SECONDS


def test_failures_of_the_other_side_open_it(target: Target[str]) -> None:
    told = [target.record([FAILED], 0.1) for _ in range(10)]

    assert told == [False] * 9 + [True]
    assert target.is_open


@pytest.mark.parametrize(
    "outcome",
    [Outcome.fault("bug"), Outcome.cut_short("shutdown"), Outcome.snooze("later", 1.0)],
)
def test_what_says_nothing_of_the_target_does_not_count(
    target: Target[str], clock: HandClock, outcome: Outcome
) -> None:
    for _ in range(20):
        target.record([outcome], 0.1)
    assert not target.is_open

    for _ in range(10):
        target.record([FAILED], 0.1)
    clock.turn(30.0)
    assert target.held_back() is None, "the probe"
    assert not target.record([outcome], 0.1)

    assert target.is_open
    assert target.held_back() is None, "the next one tries"


def test_a_refusal_is_the_answer_of_a_healthy_target(target: Target[str]) -> None:
    for _ in range(50):
        target.record([Outcome.refused("http_400", http_status=400)], 0.1)

    assert not target.is_open


def test_what_is_held_back_is_spread_out(target: Target[str]) -> None:
    for _ in range(10):
        target.record([FAILED], 0.1)

    snoozes = [target.held_back() for _ in range(100)]

    waits = [snooze.retry_after or 0.0 for snooze in snoozes if snooze]
    assert len(waits) == 100
    assert waits == sorted(waits)
    assert waits[0] >= 30.0
    assert len(set(waits)) == 100


def test_whoever_waits_too_long_is_given_back_with_a_later_turn(
    target: Target[str], clock: HandClock
) -> None:
    target.record([Outcome.delivered()], 8.0)
    for number in range(3):
        target.waiting.append((clock(), [work(number)]))
    clock.turn(1.0)
    target.waiting.append((clock(), [work(3)]))

    given_back = list(target.impatient(1.0))

    assert [batch[0].id for batch, _ in given_back] == [0, 1, 2]
    waits = [snooze.retry_after or 0.0 for _, snooze in given_back]
    assert waits == sorted(set(waits))
    assert len(target.waiting) == 1


def test_idle_targets_are_forgotten_and_others_are_not(clock: HandClock) -> None:
    targets: Targets[str] = Targets(1, BreakerLimits(), clock)
    paused = targets["paused"]
    paused.record([Outcome.retry("slow", http_status=429, retry_after=60.0)], 0.1)
    for number in range(TARGETS_KEPT - 1):
        targets[str(number)]
    targets["one more"]
    assert targets["paused"] is paused

    first = targets["1"]
    clock.turn(60.0)
    for number in range(TARGETS_KEPT + 10):
        targets[f"another {number}"]
    assert targets["1"] is not first


def test_targets_that_stay_dead_do_not_keep_others_from_being_forgotten(clock: HandClock) -> None:
    targets: Targets[str] = Targets(1, BreakerLimits(), clock)
    dead = targets["dead"]
    for _ in range(10):
        dead.record([FAILED], 0.1)
    assert dead.is_open
    clock.turn(3600.0)
    busy = targets["busy"]
    busy.waiting.append((clock(), [work(1)]))
    first = targets["first"]

    for number in range(TARGETS_KEPT):
        targets[str(number)]

    assert targets["busy"] is busy
    assert targets["first"] is not first
    assert targets["dead"] is not dead
