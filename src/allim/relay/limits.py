"""How a relay claims and waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from allim.relay.breaker import BreakerLimits


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """How a relay claims and waits; times in seconds.

    `claim_batch` is the most that one claim takes, two at least: half of it is for timed work.
    An idle lane polls after `poll_min`, then ever more slowly up to `poll_max` (`poll_max_deaf`
    where wakes from other processes cannot be heard). `patience` is how long work waits in this
    process for a busy or rated target before it is snoozed. At a stop, calls under way have
    `grace` to end.
    """

    lease: float = 60.0
    claim_batch: int = 500
    poll_min: float = 0.05
    poll_max: float = 5.0
    poll_max_deaf: float = 0.5
    patience: float = 1.0
    rescue_every: float = 30.0
    expire_every: float = 5.0
    grace: float = 20.0
    breaker: BreakerLimits = field(default_factory=BreakerLimits)
