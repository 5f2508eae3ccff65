"""Any history of clocks, crashes and schedulers: no slot twice, none passed over in silence."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from itertools import takewhile
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from allim.database.pool import Database
from allim.scheduler.cron import Cron
from allim.scheduler.fires import ATTEMPTS
from allim.scheduler.jobs import JobEnded
from allim.scheduler.scheduler import Scheduler
from allim.scheduler.slots import WINDOW
from tests.scheduler.conftest import START, Jobs, Stage, settled, with_fake_clock

WORKERS = 3
CRONS = {"quick": "*/2 * * * *", "usual": "*/10 * * * *", "rare": "7 * * * *"}

Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([1, 30, 59, 61, 120, 300, 600, 601, 4000])),
        st.tuples(st.just("turn"), st.integers(0, WORKERS - 1)),
        st.tuples(st.just("turn all"), st.just(0)),
        st.tuples(st.just("begin and die"), st.integers(0, WORKERS - 1)),
        st.tuples(st.just("ask"), st.integers(1, len(CRONS))),
    ),
    min_size=5,
    max_size=30,
)


class History:
    """Plays steps, and holds what happened against what was promised."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ends, self.hangs = Jobs(), Jobs(held=True)
        self.schedulers = [self._born(number) for number in range(WORKERS)]
        self.deaths = 0
        self.seen: datetime | None = None

    async def play(self, steps: list[Step]) -> None:
        for name, cron in CRONS.items():
            await self.stage.schedule(cron, name)
        for what, number in steps:
            if what == "wait":
                await self.stage.turn_clock(number)
            elif what == "turn":
                await self._turn(self.schedulers[number])
            elif what == "turn all":
                await asyncio.gather(*(self._turn(each) for each in self.schedulers))
            elif what == "begin and die":
                await self._die(number)
            else:
                await self._ask(number)
            await self._hold()
        # Whatever was left behind comes to an end, as soon as a scheduler lives long enough.
        for _ in range(3):
            await self.stage.turn_clock(61)
            await self._turn(self.schedulers[0])
        rows = await self.stage.database.fetch(
            "SELECT 1 FROM schedule_fire WHERE status IN ('QUEUED', 'RUNNING')"
        )
        assert rows == []

    async def _turn(self, scheduler: Scheduler) -> None:
        await scheduler.turn()
        await settled(scheduler)
        self.seen = self.stage.now

    async def _die(self, number: int) -> None:
        dying = Scheduler(self.schedulers[number]._ledger, {"sync": self._hang})
        await dying.turn()
        self.seen = self.stage.now
        self.deaths += 1
        for task in list(dying._running):
            task.cancel()
            await asyncio.wait([task])

    async def _ask(self, schedule: int) -> None:
        rows = await self.stage.database.fetch(
            "SELECT 1 FROM schedule_fire WHERE schedule_id = %(id)s"
            " AND status IN ('QUEUED', 'RUNNING')",
            {"id": schedule},
        )
        if not rows:
            await self.stage.schedules.fire(schedule)
            await self.stage.turn_clock(0.001)

    async def _hang(self, parameters: Mapping[str, Any]) -> JobEnded:
        return await self.hangs(parameters)

    def _born(self, number: int) -> Scheduler:
        return self.stage.scheduler(self.ends, f"worker {number}")

    async def _hold(self) -> None:
        rows = await self.stage.database.fetch(
            "SELECT s.name, f.due_at, f.status, f.attempts"
            "  FROM schedule_fire f JOIN schedule s ON s.id = f.schedule_id"
            " WHERE f.cause = 'slot' ORDER BY f.due_at"
        )
        assert max(Counter((row[0], row[1]) for row in rows).values(), default=0) <= 1
        for name, expression in CRONS.items():
            recorded = {due: status for of, due, status, _ in rows if of == name}
            slots = self._slots(expression)
            assert recorded.keys() <= set(slots), "only slots fire"
            silent = None
            for slot in slots:
                status = recorded.get(slot)
                if status is not None:
                    silent = slot if status == "MISSED" else None
                # What has no record of its own stands behind one that says how many were missed.
                assert status is not None or silent is not None, f"{name}: {slot} was passed over"
            if slots and self.seen is not None and self.seen - slots[-1] < WINDOW:
                assert recorded[slots[-1]] != "MISSED", f"{name}: {slots[-1]} had time to fire"
        assert all(attempts <= ATTEMPTS for *_, attempts in rows)

    def _slots(self, expression: str) -> list[datetime]:
        """Those that a living scheduler has had to decide."""
        seen = self.seen
        if seen is None:
            return []
        slots = Cron(expression, "UTC").slots(START)
        return list(takewhile(lambda slot: slot <= seen, slots))


def test_no_slot_fires_twice_and_none_is_passed_over_in_silence(database_url: str) -> None:
    url = with_fake_clock(database_url)

    async def one(steps: list[Step]) -> None:
        async with Database(url) as database:
            async with database.transaction() as tx:
                await tx.execute("TRUNCATE schedule, schedule_fire RESTART IDENTITY")
                await tx.execute("UPDATE fake.clock SET at = %(at)s", {"at": START})
            history = History(Stage(database))
            await history.play(steps)
            begun = len(history.ends.calls) + len(history.hangs.calls)
            rows = await database.fetch("SELECT coalesce(sum(attempts), 0) FROM schedule_fire")
            assert begun == rows[0][0], "what began is what is on record, no more and no less"

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(STEPS)
    def hold(steps: list[Step]) -> None:
        asyncio.run(one(steps))

    hold()
