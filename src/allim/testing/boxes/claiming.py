"""Claiming: what is due, in which order, and never twice."""

from __future__ import annotations

import asyncio

from allim.channels.channel import Message
from allim.relay.box import Box
from allim.relay.outcomes import Outcome
from allim.testing.boxes.harness import LANE, LEASE, WELL, BoxHarness, claim


class ClaimingCases:
    """Claiming: what is due, in which order, and never twice."""

    async def test_a_claim_marks_work_and_opens_its_attempt(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()

        (work,) = await claim(harness.box, worker="worker seven")

        state = await harness.read(delivery)
        assert (state.status, state.attempts, state.claimed) == ("PROCESSING", 1, True)
        assert (work.id, work.attempt_no, work.retry_count, work.rescues) == (delivery, 1, 0, 0)
        assert work.content.delivery_id == delivery
        assert (work.content.channel, work.content.recipient) == (LANE, "kim")
        (attempt,) = await harness.attempts(delivery)
        assert (attempt.attempt_no, attempt.finished, attempt.worker) == (1, False, "worker seven")

    async def test_a_claim_takes_its_own_lane_up_to_its_limit(self, harness: BoxHarness) -> None:
        own = [await harness.add_one() for _ in range(5)]
        other = await harness.add({"channel": "SLACK"})

        first = await claim(harness.box, limit=2)
        rest = await claim(harness.box, limit=10)

        assert [work.id for work in first] == own[:2]
        assert sorted(work.id for work in rest) == own[2:]
        assert (await harness.read(other)).status == "PENDING"

    async def test_nothing_due_is_nothing_claimed(self, harness: BoxHarness) -> None:
        assert await claim(harness.box) == []
        assert await harness.box.next_due(LANE) is None

    async def test_two_claimers_never_share_work(self, harness: BoxHarness) -> None:
        added = {await harness.add_one() for _ in range(40)}
        boxes = [harness.box, harness.another(), harness.another()]

        async def drain(box: Box[Message]) -> list[int]:
            taken: list[int] = []
            while works := await claim(box, limit=3):
                taken += [work.id for work in works]
            return taken

        taken = await asyncio.gather(*(drain(box) for box in boxes))
        # What two looked at in one moment is left for the next look.
        taken.append(await drain(harness.box))

        ids = [work_id for of_one in taken for work_id in of_one]
        assert len(ids) == len(set(ids))
        assert set(ids) == added
        for delivery in added:
            assert len(await harness.attempts(delivery)) == 1

    async def test_high_priority_goes_first_then_the_older_one(self, harness: BoxHarness) -> None:
        low = await harness.add({"channel": LANE}, priority=2)
        normal = [await harness.add({"channel": LANE}, priority=1) for _ in range(2)]
        high = [await harness.add({"channel": LANE}, priority=0) for _ in range(2)]

        order = []
        for _ in range(5):
            order += [work.id for work in await claim(harness.box, limit=1)]

        assert order == [*high, *normal, low]

    async def test_work_of_a_lower_id_is_found_after_one_of_a_higher(
        self, harness: BoxHarness
    ) -> None:
        first, second = await harness.add_one(), await harness.add_one()
        by_id = {work.id: work for work in await harness.claim_all()}
        assert await harness.finish(by_id[second], WELL)
        assert await harness.finish(by_id[first], Outcome.released())

        await harness.make_due()

        assert (await harness.claim_one()).id == first

    async def test_neither_timed_nor_new_work_starves_the_other(self, harness: BoxHarness) -> None:
        timed = {await harness.add({"channel": LANE}, due_in=-1.0) for _ in range(6)}
        new = {await harness.add({"channel": LANE}) for _ in range(6)}

        for _ in range(3):
            claimed = {work.id for work in await claim(harness.box, limit=4)}
            assert (len(claimed & timed), len(claimed & new)) == (2, 2)

    async def test_timed_work_alone_is_all_claimed(self, harness: BoxHarness) -> None:
        timed = {await harness.add({"channel": LANE}, due_in=-1.0) for _ in range(5)}

        claimed: set[int] = set()
        while True:
            found = await harness.box.claim(LANE, limit=4, lease=LEASE, worker="w", policy=None)
            claimed |= {work.id for work in found.works}
            if not found.look_again:
                break

        assert claimed == timed

    async def test_scheduled_work_waits_for_its_time(self, harness: BoxHarness) -> None:
        delivery = await harness.add({"channel": LANE}, due_in=3600.0)

        assert await claim(harness.box) == []
        due = await harness.box.next_due(LANE)
        assert due is not None
        assert 3500 < due <= 3600

        await harness.make_due()
        assert await harness.box.next_due(LANE) == 0.0
        assert (await harness.claim_one()).id == delivery
