"""The clock of one process, injected wherever time decides something.

Times that are stored come from the database's clock; this one measures spans within a
process (deadlines, patience, rates) and is the one thing a test turns by hand.
"""

from __future__ import annotations

import time
from datetime import timedelta, timezone
from typing import Protocol

KST = timezone(timedelta(hours=9), "KST")
"""Korea's time, in which operators read; it has known no summer time since 1988."""


class Clock(Protocol):
    """Seconds that never run backwards."""

    def __call__(self) -> float:
        """Seconds since some fixed moment."""


SYSTEM_CLOCK: Clock = time.monotonic
