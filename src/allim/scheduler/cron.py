"""When a cron expression is due, in any time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

FIELDS = 5
NOT_A_TIMEZONE = "is not a time zone like Asia/Seoul or UTC"


class InvalidCron(ValueError):
    """A cron expression that cannot be, or that never comes."""


class InvalidTimezone(ValueError):
    """A time zone that nobody knows."""


class Cron:
    """Five cron fields (minute, hour, day of month, month, day of week) in a time zone.

    Where clocks are put forward or back it does as Debian's cron: what names its hour fires
    right after the gap if its time falls into one, and once where its time comes twice; what has
    `*` for minute or hour goes by real time.

    Raises InvalidCron and InvalidTimezone.
    """

    def __init__(self, expression: str, timezone: str) -> None:
        self._expression = expression
        self._zone = _zone(timezone)
        fields = len(expression.split())
        if fields != FIELDS:
            raise InvalidCron(
                "must have five fields (minute, hour, day of month, month, day of week), as in"
                f" */10 * * * *; it has {fields}"
            )
        if self.after(datetime.now(UTC)) is None:
            raise InvalidCron("never comes: no such day exists")

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Every slot after a moment, in order, in UTC; raises InvalidCron."""
        # Loaded only where there is a schedule.
        from cronsim import CronSim, CronSimError

        last = after
        try:
            for slot in CronSim(self._expression, after.astimezone(self._zone)):
                moment = slot.astimezone(UTC)
                # Of a time that comes twice it gives the first, even when asked between the two.
                if moment > last:
                    yield moment
                    last = moment
        except CronSimError as error:
            raise InvalidCron(_said(str(error))) from None
        except (ValueError, OverflowError):
            raise InvalidCron("has a number that cannot be") from None

    def after(self, moment: datetime) -> datetime | None:
        """The first slot after a moment; None where none comes within 50 years."""
        return next(self.slots(moment), None)


@lru_cache(maxsize=1024)
def cron(expression: str, timezone: str) -> Cron:
    """The same, read once. Raises InvalidCron and InvalidTimezone."""
    return Cron(expression, timezone)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    # A name that is a path, a directory, or nothing at all fails in as many ways.
    except (LookupError, ValueError, OSError):
        raise InvalidTimezone(NOT_A_TIMEZONE) from None


def _said(problem: str) -> str:
    name = problem.removeprefix("Bad ")
    return f"has a {name} that cannot be" if name != problem else problem.lower()
