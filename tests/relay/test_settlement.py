"""What an outcome makes of the work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import RESCUES_BEFORE_DEAD, Transition, decide
from allim.relay.work import Work

RETRY = RetryPolicy(base=60.0, jitter=lambda: 1.0)
OUTCOMES = {
    "delivered": Outcome.delivered(),
    "accepted": Outcome.accepted(),
    "retry": Outcome.retry("http_500"),
    "refused": Outcome.refused("http_400"),
    "snoozed": Outcome.snooze("quiet_hours", 600.0),
    "skipped": Outcome.skip("cancelled"),
    "fault": Outcome.fault("bug"),
    "unknown": Outcome.unknown("timeout"),
    "cut short": Outcome.cut_short("shutdown"),
    "released": Outcome.released(),
}


def a_work(*, retry_count: int = 0, rescues: int = 0, attempt_no: int = 1) -> Work[str]:
    return Work(1, "token", attempt_no, retry_count, 3, rescues, 0.0, "content")


def test_every_kind_of_outcome_is_decided() -> None:
    assert {outcome.kind for outcome in OUTCOMES.values()} == set(OutcomeKind)


@pytest.mark.parametrize(
    ("outcome", "fresh", "last_try", "crash_loop", "at_most_once"),
    [
        ("delivered", "complete", "complete", "complete", "complete"),
        ("accepted", "accept", "accept", "accept", "accept"),
        ("retry", "retry", "bury", "retry", "retry"),
        ("refused", "bury", "bury", "bury", "bury"),
        ("snoozed", "snooze", "snooze", "snooze", "snooze"),
        ("skipped", "skip", "skip", "skip", "skip"),
        ("fault", "snooze", "snooze", "bury", "snooze"),
        ("unknown", "retry", "bury", "retry", "hold"),
        ("cut short", "snooze", "snooze", "bury", "hold"),
        ("released", "snooze", "snooze", "snooze", "snooze"),
    ],
)
def test_the_state_of_the_work_tells_what_an_outcome_means(
    outcome: str, fresh: str, last_try: str, crash_loop: str, at_most_once: str
) -> None:
    told = OUTCOMES[outcome]

    assert decide(a_work(), told, RETRY).transition == fresh
    assert decide(a_work(retry_count=2, attempt_no=3), told, RETRY).transition == last_try
    assert decide(a_work(rescues=RESCUES_BEFORE_DEAD), told, RETRY).transition == crash_loop
    assert decide(a_work(), told, RETRY, at_most_once=True).transition == at_most_once


@pytest.mark.parametrize("name", OUTCOMES)
def test_only_what_the_other_side_failed_is_spent(name: str) -> None:
    settlement = decide(a_work(), OUTCOMES[name], RETRY)

    assert settlement.spent == (name in {"retry", "refused", "unknown"})


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("rescues", [0, RESCUES_BEFORE_DEAD])
@pytest.mark.parametrize("at_most_once", [True, False])
def test_only_what_is_tried_again_has_a_time(name: str, rescues: int, at_most_once: bool) -> None:
    settlement = decide(a_work(rescues=rescues), OUTCOMES[name], RETRY, at_most_once=at_most_once)

    again = settlement.transition in (Transition.RETRY, Transition.SNOOZE)
    assert (settlement.delay is not None) == again


def test_a_crash_loop_says_so() -> None:
    settlement = decide(a_work(rescues=5), Outcome.cut_short("lease_expired"), RETRY)

    assert (settlement.code, settlement.spent) == ("crash_loop", False)


def test_a_retry_waits_as_long_as_the_provider_asks() -> None:
    settlement = decide(a_work(), Outcome.retry("slow", retry_after=500.0), RETRY)

    assert settlement.delay == 500.0


@pytest.mark.parametrize(("attempt_no", "delay"), [(1, 60.0), (2, 120.0), (9, 600.0)])
def test_faults_of_ours_back_off(attempt_no: int, delay: float) -> None:
    assert decide(a_work(attempt_no=attempt_no), Outcome.fault("bug"), RETRY).delay == delay


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_snooze_is_a_time_that_can_be_stored(seconds: float) -> None:
    delay = decide(a_work(), Outcome.snooze("later", seconds), RETRY).delay

    assert delay is not None
    assert 0.0 <= delay <= 366 * 24 * 3600.0


@given(st.integers(1, 20))
def test_exactly_max_attempts_failures_bury(max_attempts: int) -> None:
    failures = 0
    while True:
        work = Work(1, "t", failures + 1, failures, max_attempts, 0, 0.0, "content")
        failures += 1
        if decide(work, Outcome.retry("http_500"), RETRY).transition is Transition.BURY:
            break

    assert failures == max_attempts
