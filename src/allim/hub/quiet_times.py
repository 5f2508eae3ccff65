"""When quiet hours are: wall-clock times of a zone, over midnight and through changes of clocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

EVERY_DAY = frozenset(range(1, 8))
CHAIN = 32
"""Windows that may follow each other without a pause; then it is looked at again."""


@dataclass(frozen=True, slots=True)
class QuietTimes:
    """A window that begins on each of `days` (ISO weekdays) and ends at the next `ends`.

    `begins` equal to `ends` is a window of a whole day.
    """

    begins: time
    ends: time
    zone: ZoneInfo
    days: frozenset[int] = EVERY_DAY

    def end_of(self, now: datetime) -> datetime | None:
        """The end (UTC) of the window that `now` (aware) is in; None outside of any.

        A window begins at the first moment at which the clocks show `begins` or more, and ends at
        the first at which they show `ends` or more: what a spring leaves out does not lengthen
        it, what an autumn repeats does not begin it anew.
        """
        today = now.astimezone(self.zone).date()
        found: datetime | None = None
        for days_ago in (2, 1, 0):
            day = today - timedelta(days=days_ago)
            if day.isoweekday() not in self.days:
                continue
            begin = moment_of(day, self.begins, self.zone)
            last = day if self.ends > self.begins else day + timedelta(days=1)
            end = moment_of(last, self.ends, self.zone)
            if begin <= now < end:
                found = end if found is None else max(found, end)
        return found


def quiet_until(windows: Sequence[QuietTimes], now: datetime) -> datetime | None:
    """When all of these leave off, one after the other; None where `now` is in none of them."""
    until: datetime | None = None
    for _ in range(CHAIN):
        ends = [end for window in windows if (end := window.end_of(until or now)) is not None]
        if not ends:
            break
        until = max(ends)
    return until


def moment_of(day: date, clock: time, zone: ZoneInfo) -> datetime:
    """The first moment (UTC) on which the clocks of `zone` show that time of that day, or more."""
    shown = datetime.combine(day, clock)
    early = shown.replace(tzinfo=zone).astimezone(UTC)
    if early.astimezone(zone).replace(tzinfo=None) == shown:
        return early
    # The clocks were put forward over it. Read with the offset of after the change it lies before
    # the change, with that of before it lies after: the change is where the offset turns.
    before = shown.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after, old = early, before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
        if middle.astimezone(zone).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after
