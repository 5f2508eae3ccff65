"""No advertising at night: from 21:00 to 08:00 in Korea it waits for the morning."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta

from allim.channels.channel import Message
from allim.channels.korean_sms import seconds_until_morning
from allim.channels.sms import is_advertisement
from allim.database.pool import Connection
from allim.relay.outcomes import Outcome
from allim.relay.policy import OpenPolicy
from allim.relay.work import Work

MARGIN = timedelta(minutes=1)
"""A send that is begun this long before the night could end in it."""

Now = Callable[[Connection], Awaitable[datetime]]


async def database_now(tx: Connection) -> datetime:
    """The time by the database's clock."""
    row = await (await tx.execute("SELECT clock_timestamp()")).fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


class QuietHours(OpenPolicy):
    """Snoozes advertising at night, in the claiming transaction and so before it is paid for."""

    def __init__(self, now: Now = database_now) -> None:
        self._now = now

    async def on_attempt(
        self, tx: Connection, batch: Sequence[Work[Message]]
    ) -> Mapping[int, Outcome]:
        """Snooze what is advertising."""
        advertising = [work.id for work in batch if is_advertisement(work.content)]
        if not advertising:
            return {}
        now = await self._now(tx)
        wait = seconds_until_morning(now)
        if wait is None and seconds_until_morning(now + MARGIN) is not None:
            wait = (seconds_until_morning(now + MARGIN) or 0.0) + MARGIN.total_seconds()
        if wait is None:
            return {}
        snooze = Outcome.snooze("quiet_hours", wait, "advertising waits until 08:00 in Korea")
        return dict.fromkeys(advertising, snooze)
