"""How much a change matters: what touches status or payment is grave, who still waits can wait."""

from __future__ import annotations

from collections.abc import Iterable

from allim.enrolment.lms.protocol import FailureGroup
from allim.enrolment.model import Severity

WAITING = "DS"
PREPARED = "SJC"
PAID = "GC"
STAGES = (WAITING, PREPARED, PAID)
"""The way of an enrolment. Going back leaves gc_date as it was, so a date proves no status."""

_OF_FAILURES = {
    FailureGroup.HTTP_5XX: Severity.HIGH,
    FailureGroup.TIMEOUT: Severity.HIGH,
    FailureGroup.CONFIGURATION: Severity.HIGH,
    FailureGroup.LOCK_CONFLICT: Severity.LOW,
}
_RANKS = {Severity.HIGH: 0, Severity.MEDIUM: 1, Severity.LOW: 2}
_GRAVE = frozenset({"status", "gc_date", "sjc_date"})


def of_new(status: str | None, *, paid_or_prepared: bool) -> Severity:
    """Of a record that was never seen; `paid_or_prepared` when it has a gc or sjc date."""
    if paid_or_prepared:
        return Severity.MEDIUM
    return Severity.LOW if status == WAITING else Severity.MEDIUM


def of_change(touched: Iterable[str], status: str | None) -> Severity:
    """Of a change that touched these fields and left this status."""
    if not _GRAVE.isdisjoint(touched):
        return Severity.HIGH
    return Severity.LOW if status == WAITING else Severity.MEDIUM


def is_rollback(old: str | None, new: str | None) -> bool:
    """Whether an enrolment went back on its way: GC to SJC to DS."""
    return old in STAGES and new in STAGES and STAGES.index(new) < STAGES.index(old)


def of_failure(group: FailureGroup) -> Severity:
    """Of a run that failed so."""
    return _OF_FAILURES.get(group, Severity.MEDIUM)


def rank(severity: Severity) -> int:
    """For sorting: the gravest first."""
    return _RANKS[severity]
