"""Leases, rescues and times: nobody writes what is no longer theirs."""

from __future__ import annotations

import asyncio

from allim.relay.outcomes import Outcome
from allim.relay.settlement import RESCUES_BEFORE_DEAD
from allim.testing.boxes.harness import FAILED, LANE, LEASE, REFUSED, WELL, BoxHarness, claim


class LeaseCases:
    """Leases, rescues and times: nobody writes what is no longer theirs."""

    async def test_a_stale_worker_cannot_settle(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()
        stale = await harness.claim_one()
        rescued = await harness.rescue_one()

        assert not await harness.finish(stale, REFUSED)
        assert (await harness.read(delivery)).status == "PROCESSING"
        (attempt,) = await harness.attempts(delivery)
        assert not attempt.finished

        assert await harness.finish(rescued, WELL)
        assert not await harness.finish(stale, REFUSED)
        assert (await harness.read(delivery)).status == "SUCCESS"

    async def test_a_rescue_is_a_new_claim_of_the_same_attempt(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()
        lost = await harness.claim_one()

        rescued = await harness.rescue_one()

        assert (rescued.id, rescued.attempt_no, rescued.rescues) == (delivery, 1, 1)
        assert rescued.claim_token != lost.claim_token
        assert rescued.content.recipient == "kim"
        state = await harness.read(delivery)
        assert (state.status, state.attempts, state.rescue_count) == ("PROCESSING", 1, 1)
        assert len(await harness.attempts(delivery)) == 1

    async def test_work_whose_lease_still_runs_is_not_rescued(self, harness: BoxHarness) -> None:
        await harness.add_one()
        held = await harness.claim_one()
        assert not await harness.box.rescue(LANE, limit=10, lease=LEASE, worker="rescuer")

        await harness.lapse_leases()
        keeper = harness.box.lease_keeper()
        assert await asyncio.to_thread(keeper.extend, [held], LEASE) == {held.id}
        await asyncio.to_thread(keeper.close)

        assert not await harness.box.rescue(LANE, limit=10, lease=LEASE, worker="rescuer")
        assert await harness.finish(held, WELL)

    async def test_a_lost_lease_is_not_extended(self, harness: BoxHarness) -> None:
        await harness.add_one()
        await harness.add_one()
        lost, settled = await harness.claim_all()
        await harness.finish(settled, WELL)
        rescued = await harness.rescue_one()

        keeper = harness.box.lease_keeper()
        held = await asyncio.to_thread(keeper.extend, [lost, settled, rescued], LEASE)
        of_stale = await asyncio.to_thread(keeper.extend, [lost, settled], LEASE)
        await asyncio.to_thread(keeper.close)

        assert (held, of_stale) == ({rescued.id}, set())

    async def test_five_rescues_are_a_crash_loop(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()
        states = []
        for _ in range(RESCUES_BEFORE_DEAD):
            await harness.claim_one()
            rescued = await harness.rescue_one()
            assert await harness.finish(rescued, Outcome.cut_short("lease_expired"))
            states.append(await harness.read(delivery))

        assert [state.status for state in states] == ["PENDING"] * 4 + ["DEAD"]
        assert (states[-1].error_code, states[-1].retry_count) == ("crash_loop", 0)
        assert states[-1].attempts == 5

    async def test_only_whoever_holds_the_claim_records_a_provider_id(
        self, harness: BoxHarness
    ) -> None:
        first, second = await harness.add_one(), await harness.add_one()
        works = await harness.claim_all()
        assert await harness.box.record_provider_id(works, "group-1")
        for delivery in (first, second):
            assert (await harness.read(delivery)).provider_id == "group-1"
            assert (await harness.attempts(delivery))[0].provider_id == "group-1"

        assert await harness.finish(works[0], WELL)
        assert not await harness.box.record_provider_id(works, "group-2")

        # All or none of them.
        assert (await harness.read(second)).provider_id == "group-1"
        rescued = await harness.rescue_one()
        assert rescued.content.provider_id == "group-1"
        assert not await harness.box.record_provider_id([works[1]], "group-2")
        assert await harness.box.record_provider_id([rescued], "group-3")

    async def test_work_past_its_time_expires(self, harness: BoxHarness) -> None:
        new = await harness.add({"channel": LANE}, expires_in=600.0)
        timed = await harness.add({"channel": LANE}, due_in=60.0, expires_in=600.0)
        failed = await harness.add({"channel": LANE}, priority=0, expires_in=600.0)
        (work,) = await claim(harness.box, limit=1)
        assert work.id == failed
        await harness.finish(work, FAILED)
        other = await harness.add({"channel": LANE})
        assert await harness.box.expire() == 0

        await harness.pass_expiry()

        assert [work.id for work in await harness.claim_all()] == [other]
        assert await harness.box.next_due(LANE) is None
        assert await harness.box.expire() == 3
        for delivery in (new, timed, failed):
            state = await harness.read(delivery)
            assert (state.status, state.waits, state.error_code) == ("EXPIRED", None, "expired")
        assert await harness.box.expire() == 0

    async def test_what_is_under_way_does_not_expire(self, harness: BoxHarness) -> None:
        delivery = await harness.add({"channel": LANE}, expires_in=600.0)
        work = await harness.claim_one()

        await harness.pass_expiry()

        assert await harness.box.expire() == 0
        assert await harness.finish(work, WELL)
        assert (await harness.read(delivery)).status == "SUCCESS"

    async def test_the_next_due_is_the_soonest_of_its_lane(self, harness: BoxHarness) -> None:
        await harness.add({"channel": LANE}, due_in=7200.0)
        await harness.add({"channel": LANE}, due_in=3600.0)
        await harness.add({"channel": "SLACK"}, due_in=60.0)
        await harness.add({"channel": LANE})

        due = await harness.box.next_due(LANE)

        assert due is not None
        assert 3500 < due <= 3600
