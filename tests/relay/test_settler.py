"""Settling: written when it can be, and never lost before that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from allim.base.errors import DatabaseUnavailable
from allim.channels.channel import Message
from allim.hub.status import DeliveryStatus
from allim.relay.observer import Settled
from allim.relay.outcomes import Outcome
from allim.relay.policy import ChannelPolicy, OpenPolicy
from allim.relay.settlement import Settlement, decide
from allim.relay.settler import Settler
from allim.relay.work import Work
from allim.testing.boxes import LANE, RETRY
from allim.testing.memory_box import MemoryBox
from tests.relay.outside import Notes
from tests.relay.virtual_time import in_virtual_time, loop_clock, until


class FarBox(MemoryBox):
    """A box behind a connection that a test may cut, before the settle or after it."""

    def __init__(self) -> None:
        super().__init__(clock=loop_clock)
        self.down = False
        self.loses_the_answer = False
        self.asked: list[int] = []

    async def settle(
        self, settlements: Sequence[Settlement[Message]], policy: ChannelPolicy[Message] | None
    ) -> set[int]:
        self.asked.append(len(settlements))
        if self.down:
            raise DatabaseUnavailable("gone")
        landed = await super().settle(settlements, policy)
        if self.loses_the_answer:
            self.loses_the_answer = False
            raise DatabaseUnavailable("gone after the commit")
        return landed


class Settling:
    """A settler at work on claimed deliveries."""

    def __init__(
        self,
        box: MemoryBox,
        policy: ChannelPolicy[Message] | None = None,
        notes: Notes | None = None,
    ) -> None:
        self.box = box
        self.notes = notes or Notes()
        self.done: list[int] = []
        self.settler: Settler[Message] = Settler(
            LANE, box, policy, self.notes, lambda works: self.done.extend(w.id for w in works)
        )
        self.task = asyncio.create_task(self.settler.run())

    async def claim(self, count: int) -> Sequence[Work[Message]]:
        for _ in range(count):
            self.box.add(LANE)
        claim = await self.box.claim(LANE, limit=count, lease=60.0, worker="w", policy=None)
        return claim.works

    def put(self, works: Sequence[Work[Message]]) -> None:
        outcome = Outcome.delivered()
        self.settler.put([decide(work, outcome, RETRY) for work in works], "target", 0.1)

    async def close(self) -> None:
        self.settler.close()
        await self.task

    def statuses(self) -> set[DeliveryStatus]:
        return {delivery.status for delivery in self.box.deliveries.values()}


@in_virtual_time
async def test_what_gathers_while_one_batch_is_written_goes_into_the_next() -> None:
    box = FarBox()
    settling = Settling(box)
    works = await settling.claim(1201)

    for work in works:
        settling.put([work])
    await settling.close()

    assert box.asked == [500, 500, 201]
    assert sorted(settling.done) == [work.id for work in works]
    assert settling.statuses() == {DeliveryStatus.SUCCESS}


@in_virtual_time
async def test_while_the_database_is_gone_nothing_is_lost_and_nothing_spins() -> None:
    box = FarBox()
    settling = Settling(box)
    box.down = True
    settling.put(await settling.claim(3))

    await asyncio.sleep(60.0)

    assert settling.done == []
    assert 20 <= len(box.asked) <= 40
    assert len(settling.notes.losses) == len(box.asked)

    box.down = False
    await until(lambda: len(settling.done) == 3)
    assert settling.statuses() == {DeliveryStatus.SUCCESS}
    assert all(settled.landed for settled in settling.notes.batches)
    await settling.close()


@in_virtual_time
async def test_a_settle_whose_answer_was_lost_is_not_done_twice() -> None:
    box = FarBox()
    settling = Settling(box)
    box.loses_the_answer = True
    settling.put(await settling.claim(1))

    await settling.close()

    assert settling.statuses() == {DeliveryStatus.SUCCESS}
    assert len(box.deliveries[1].attempt_log) == 1
    assert [settled.landed for settled in settling.notes.batches] == [False]


@in_virtual_time
async def test_one_that_cannot_be_written_does_not_hold_up_the_others() -> None:
    class AgainstTwo(OpenPolicy):
        async def on_settle(self, tx: Any, settled: Sequence[Settlement[Any]]) -> None:
            if any(settlement.work.id == 2 for settlement in settled):
                raise ZeroDivisionError

    box = FarBox()
    settling = Settling(box, AgainstTwo())
    settling.put(await settling.claim(3))

    await settling.close()

    assert [box.deliveries[number].status for number in (1, 2, 3)] == [
        DeliveryStatus.SUCCESS,
        DeliveryStatus.PROCESSING,
        DeliveryStatus.SUCCESS,
    ]
    assert sorted(settling.done) == [1, 2, 3]
    assert [(one.settlement.work.id, one.landed) for one in settling.notes.batches] == [
        (1, True),
        (2, False),
        (3, True),
    ]


@in_virtual_time
async def test_closing_writes_what_waits() -> None:
    box = FarBox()
    settling = Settling(box)
    works = await settling.claim(2)
    box.down = True
    settling.put(works[:1])
    await asyncio.sleep(1.0)
    settling.put(works[1:])
    settling.settler.close()
    box.down = False

    await settling.task

    assert settling.statuses() == {DeliveryStatus.SUCCESS}


class Deaf(Notes):
    """An observer with a bug."""

    def settled(self, lane: str, batch: Sequence[Settled]) -> None:
        raise ValueError("no ears")


@in_virtual_time
async def test_an_observer_that_fails_does_not_stop_the_settler() -> None:
    settling = Settling(FarBox(), notes=Deaf())
    for _ in range(2):
        settling.put(await settling.claim(1))
        await until(lambda: settling.statuses() == {DeliveryStatus.SUCCESS})

    assert len(settling.done) == 2
    await settling.close()
