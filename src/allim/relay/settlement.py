"""From what became of an attempt to what becomes of the work: one verb per transition."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic

from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.retry import RetryPolicy
from allim.relay.work import Content, Work

RESCUES_BEFORE_DEAD = 5
"""A piece of work over which this many leases ran out is buried: it may be what kills relays."""

LONGEST_FAULT_PAUSE_SECONDS = 600.0
"""Our own faults end when we are mended, not when the other side is; snoozes count among them."""

LONGEST_SNOOZE_SECONDS = 366 * 24 * 3600.0
"""A time that PostgreSQL cannot store would hold up its whole batch."""


class Transition(StrEnum):
    """What settling does to the work."""

    COMPLETE = "complete"
    ACCEPT = "accept"
    RETRY = "retry"
    SNOOZE = "snooze"
    SKIP = "skip"
    HOLD = "hold"
    BURY = "bury"


@dataclass(frozen=True, slots=True)
class Settlement(Generic[Content]):
    """One decided transition of one claimed piece of work.

    `delay` is seconds until the work is due again (retry and snooze only). `spent` tells
    whether the attempt counts against `max_attempts`.
    """

    work: Work[Content]
    outcome: Outcome
    transition: Transition
    delay: float | None = None
    spent: bool = False
    code: str | None = None
    """The reason that stays on the work; the outcome's own unless the decision has its own."""


def decide(
    work: Work[Content],
    outcome: Outcome,
    retry: RetryPolicy,
    *,
    at_most_once: bool = False,
) -> Settlement[Content]:
    """Decide what an outcome means for the work. Pure, but for the policy's jitter."""
    kind = outcome.kind
    if kind is OutcomeKind.DELIVERED:
        return Settlement(work, outcome, Transition.COMPLETE, code=outcome.code)
    if kind is OutcomeKind.ACCEPTED:
        return Settlement(work, outcome, Transition.ACCEPT, code=outcome.code)
    if kind is OutcomeKind.SKIPPED:
        return Settlement(work, outcome, Transition.SKIP, code=outcome.code)
    if kind is OutcomeKind.REFUSED:
        return Settlement(work, outcome, Transition.BURY, spent=True, code=outcome.code)
    if kind is OutcomeKind.SNOOZED:
        delay = min(max(0.0, outcome.retry_after or 0.0), LONGEST_SNOOZE_SECONDS)
        return Settlement(work, outcome, Transition.SNOOZE, delay, code=outcome.code)
    if kind is OutcomeKind.RELEASED:
        return Settlement(work, outcome, Transition.SNOOZE, 0.0, code=outcome.code)
    if kind is OutcomeKind.UNKNOWN and at_most_once:
        return Settlement(work, outcome, Transition.HOLD, code=outcome.code)
    if kind is OutcomeKind.RETRY or (kind is OutcomeKind.UNKNOWN and not outcome.interrupted):
        failures = work.retry_count + 1
        if failures >= work.max_attempts:
            return Settlement(work, outcome, Transition.BURY, spent=True, code=outcome.code)
        delay = retry.delay(failures, outcome.retry_after)
        return Settlement(work, outcome, Transition.RETRY, delay, spent=True, code=outcome.code)
    if work.rescues >= RESCUES_BEFORE_DEAD:
        return Settlement(work, outcome, Transition.BURY, code="crash_loop")
    if kind is OutcomeKind.UNKNOWN:
        return Settlement(work, outcome, Transition.SNOOZE, 0.0, code=outcome.code)
    faults = work.attempt_no - work.retry_count
    delay = min(retry.delay(faults), LONGEST_FAULT_PAUSE_SECONDS)
    return Settlement(work, outcome, Transition.SNOOZE, delay, code=outcome.code)
