"""How an ordered relay reads, waits and retries."""

from __future__ import annotations

from dataclasses import dataclass

SLOTS = 64


@dataclass(frozen=True, slots=True)
class OrderedLimits:
    """How an ordered relay reads, waits and retries; times in seconds.

    A turn takes `batch` messages, more and more up to `batch_max` while there is a backlog, but
    no more than about `turn_bytes`. `turns` of them may be under way at a time. After
    `max_retries` retries, `retry_after` apart, a message is dead. An idle relay polls after
    `poll` (`poll_deaf` where it hears no wakes). A publisher that can't be had is tried again
    after `pause`, then ever later up to `pause_max`.
    """

    lease: float = 15.0
    batch: int = 100
    batch_max: int = 1000
    turn_bytes: int = 8 * 1024 * 1024
    turns: int = 3
    max_retries: int = 3
    retry_after: float = 60.0
    poll: float = 5.0
    poll_deaf: float = 0.5
    due_every: float = 1.0
    balance_every: float = 1.0
    rescan_every: float = 60.0
    pause: float = 0.5
    pause_max: float = 15.0
    grace: float = 20.0
