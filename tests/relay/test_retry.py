"""When to try again."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from allim.relay.retry import RetryPolicy

seconds = st.floats(0.001, 1e6)
any_float = st.floats(allow_nan=True, allow_infinity=True)


def test_the_wait_doubles_up_to_its_maximum() -> None:
    policy = RetryPolicy(base=60.0, maximum=3600.0, jitter=lambda: 1.0)

    waits = [policy.delay(retries) for retries in range(1, 9)]

    assert waits == [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]


@given(seconds, seconds, st.integers(-5, 10**9))
def test_the_wait_stays_within_its_jitter(base: float, maximum: float, retries: int) -> None:
    delay = RetryPolicy(base=base, maximum=maximum).delay(retries)

    backoff = min(base * 2.0 ** min(max(retries - 1, 0), 60), maximum)
    assert 0.8 * backoff <= delay <= 1.2 * backoff * (1 + 1e-9)


@given(st.integers(1, 20), any_float)
def test_whatever_a_provider_asks_the_wait_is_a_sane_time(retries: int, wish: float) -> None:
    policy = RetryPolicy()

    delay = policy.delay(retries, wish)

    assert math.isfinite(delay)
    assert 48.0 <= delay <= 24 * 3600.0


@given(st.floats(72.0, 1e7))
def test_a_providers_longer_wish_wins_up_to_a_day(wish: float) -> None:
    assert RetryPolicy().delay(1, wish) == min(wish, 24 * 3600.0)
