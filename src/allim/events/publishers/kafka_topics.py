"""Which topics the brokers know, and which they may be about to make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.relay.outcomes import Outcome

CREATION_SECONDS = 5.0
"""How long a topic may take to be there once a broker that makes topics was asked for it."""
AGAIN_SECONDS = 0.5
MISSED_KEPT = 1000


class Topics:
    """What is known of topics, and since when those that were asked for are missing.

    A broker that makes topics by itself knows none of the name when it is first asked, just like
    one that never will. So a topic that has been missing for less than `patience` seconds is
    not there yet: its lines wait a moment and nothing is spent.
    """

    def __init__(self, *, patience: float = CREATION_SECONDS, clock: Clock = SYSTEM_CLOCK) -> None:
        self._patience = patience
        self._clock = clock
        self._known: set[str] = set()
        self._missing_since: dict[str, float] = {}

    def unknown(self, topics: Iterable[str]) -> Sequence[str]:
        """Those of which it is not known that they are there."""
        return sorted(set(topics) - self._known)

    def is_new(self, topic: str) -> bool:
        """Whether it was not found missing before."""
        return topic not in self._missing_since

    def found(self, topic: str) -> None:
        """It is there."""
        self._known.add(topic)
        self._missing_since.pop(topic, None)

    def missing(self, topic: str, words: str) -> Outcome:
        """The brokers say that they know no such topic: what that means for its messages."""
        self._known.discard(topic)
        now = self._clock()
        if topic not in self._missing_since and len(self._missing_since) >= MISSED_KEPT:
            del self._missing_since[next(iter(self._missing_since))]
        if now - self._missing_since.setdefault(topic, now) < self._patience:
            return Outcome.snooze("unknown_topic", AGAIN_SECONDS, words)
        return Outcome.retry("unknown_topic", words)
