"""When to try again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter: min(base·2ⁿ, maximum) × uniform(0.8, 1.2).

    Times are seconds. `attempts` is how many tries the other side may fail before the
    work is dead. A provider's own Retry-After wins where it is longer, up to `retry_after_limit`.
    """

    base: float = 60.0
    maximum: float = 3600.0
    attempts: int = 8
    retry_after_limit: float = 24 * 3600.0
    jitter: Callable[[], float] = field(default=lambda: random.uniform(0.8, 1.2))  # noqa: S311

    def delay(self, retries: int, retry_after: float | None = None) -> float:
        """Seconds to wait after the `retries`-th failure (1 for the first)."""
        exponent = min(max(retries - 1, 0), 60)
        backoff: float = min(self.base * 2.0**exponent, self.maximum) * self.jitter()
        if retry_after is None:
            return backoff
        return max(backoff, min(max(retry_after, 0.0), self.retry_after_limit))
