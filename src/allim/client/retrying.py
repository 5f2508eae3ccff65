"""When a call is tried again, and how long after."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WORTH_RETRYING = frozenset({429, 502, 503, 504})
LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Retrying:
    """At most `attempts` tries; waits double from `base` to `maximum` seconds.

    A server's Retry-After counts where it asks for more, up to a minute.
    """

    attempts: int = 4
    base: float = 0.2
    maximum: float = 5.0
    jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2)  # noqa: S311

    def wait(self, tried: int, headers: Mapping[str, str]) -> float:
        """Seconds before the next try, after `tried` that failed."""
        own = min(self.base * float(2 ** (tried - 1)), self.maximum) * self.jitter()
        asked = headers.get("retry-after", "")
        return max(own, min(float(asked[:9]), LONGEST_WAIT)) if asked.isdigit() else own
