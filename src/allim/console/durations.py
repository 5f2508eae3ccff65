"""Spans of time as the console shows them, and from when on one is too long."""

from __future__ import annotations

LATE_SECONDS = 60.0
STUCK_SECONDS = 300.0


def duration(seconds: float | None) -> str:
    """A span of time in two units at most, the same in every language."""
    if seconds is None:
        return "\N{EN DASH}"
    whole = int(seconds)
    for size, unit, smaller, part in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f" {rest}{part}" if rest else "")
    return f"{seconds:.1f}s" if seconds < 10 else f"{whole}s"


def lateness(seconds: float | None) -> str:
    """How the age of the oldest that is due looks: a mood of the style sheet's."""
    age = seconds or 0.0
    return "bad" if age >= STUCK_SECONDS else "warn" if age >= LATE_SECONDS else ""
