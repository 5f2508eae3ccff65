"""Which topics the brokers know, and which they may be about to make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.relay.outcomes import Outcome

CREATION_SECONDS = 5.0
"""How long a topic may take to be there once a broker that makes topics was asked for it."""
AGAIN_SECONDS = 0.5
YOUNG_SECONDS = 10.0
"""How long a broker may take from telling of a new topic until it takes messages for it."""
MISSED_KEPT = 1000


class Topics:
    """What is known of topics, and since when those that were asked for are missing.

    A broker that makes topics by itself knows none of the name when it is first asked, just like
    one that never will. So a topic that has been missing for less than `patience` seconds is
    not there yet: its lines wait a moment and nothing is spent.

    One that has just been made is young. A broker may refuse a first request for it, since it is
    not ready, take the second, which came a moment later, and then the first, repeated, for a
    repeat of what it has: its numbers are lower. So what goes to a young topic goes one by one.
    """

    def __init__(self, *, patience: float = CREATION_SECONDS, clock: Clock = SYSTEM_CLOCK) -> None:
        self._patience = patience
        self._clock = clock
        self._known: set[str] = set()
        self._missing_since: dict[str, float] = {}
        self._young_until: dict[str, float] = {}

    def unknown(self, topics: Iterable[str]) -> Sequence[str]:
        """Those of which it is not known that they are there."""
        return sorted(set(topics) - self._known)

    def is_new(self, topic: str) -> bool:
        """Whether it was not found missing before."""
        return topic not in self._missing_since

    def found(self, topic: str, *, just_made: bool = False) -> None:
        """It is there; `just_made` if it was not a moment ago."""
        self._known.add(topic)
        if self._missing_since.pop(topic, None) is not None or just_made:
            self._young_until[topic] = self._clock() + YOUNG_SECONDS

    def is_young(self, topic: str) -> bool:
        """Whether it was made so lately that its brokers may not be ready for it."""
        if not self._young_until or topic not in self._young_until:
            return False
        if self._clock() < self._young_until[topic]:
            return True
        del self._young_until[topic]
        return False

    def missing(self, topic: str, words: str) -> Outcome:
        """The brokers say that they know no such topic: what that means for its messages."""
        self._known.discard(topic)
        now = self._clock()
        if topic not in self._missing_since and len(self._missing_since) >= MISSED_KEPT:
            del self._missing_since[next(iter(self._missing_since))]
        if now - self._missing_since.setdefault(topic, now) < self._patience:
            return Outcome.snooze("unknown_topic", AGAIN_SECONDS, words)
        return Outcome.retry("unknown_topic", words)
