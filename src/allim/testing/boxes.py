"""The cases that every box of deliveries must pass. Allim's own do; run them on yours.

    class TestMyBox(BoxConformance):
        @pytest.fixture
        async def harness(self):
            yield MyHarness()

Every case is a coroutine method, for pytest-asyncio in its auto mode.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from allim.base.ids import uuid7
from allim.channels.channel import Message
from allim.hub.receipts import FinalReceipt, ReceiptResult
from allim.hub.status import DeliveryStatus
from allim.relay.box import Box
from allim.relay.outcomes import RESPONSE_LIMIT, Outcome
from allim.relay.policy import ChannelPolicy, OpenPolicy
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import RESCUES_BEFORE_DEAD, Settlement, Transition, decide
from allim.relay.work import Work

LANE = "LOG"
LEASE = 60.0
RETRY = RetryPolicy(base=60.0, jitter=lambda: 1.0)

Entry = Mapping[str, Any]

WELL = Outcome.delivered()
FAILED = Outcome.retry("http_500", "the other side is ill", http_status=500)
REFUSED = Outcome.refused("http_400", "it says no", http_status=400)


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """How a delivery stands. `waits` is seconds until it is due, None where it has no time."""

    id: int
    channel: str
    recipient: str | None
    status: DeliveryStatus
    attempts: int
    retry_count: int
    rescue_count: int
    waits: float | None
    claimed: bool
    step: str
    parent_id: int | None
    superseded_by: int | None
    error_code: str | None
    last_error: str | None
    provider_id: str | None
    receipt_status: str | None


@dataclass(frozen=True, slots=True)
class AttemptState:
    """One attempt on record."""

    attempt_no: int
    finished: bool
    outcome: str | None
    error_code: str | None
    error: str | None
    http_status: int | None
    response: str | None
    provider_id: str | None
    receipt_status: str | None
    worker: str


class BoxHarness(ABC):
    """A box, and hands that reach what a relay cannot."""

    box: Box[Message]

    @abstractmethod
    def another(self) -> Box[Message]:
        """Another relay's box on the same store."""

    @abstractmethod
    async def add(
        self,
        entry: Entry,
        *,
        notification: UUID | None = None,
        priority: int = 1,
        due_in: float | None = None,
        expires_in: float | None = None,
    ) -> int:
        """Add a delivery: `channel`, `recipient`, `max_attempts`, `row_key`, `then`, `fallback`."""

    @abstractmethod
    async def read(self, delivery_id: int) -> DeliveryState:
        """How a delivery stands."""

    @abstractmethod
    async def attempts(self, delivery_id: int) -> Sequence[AttemptState]:
        """Its attempts, first one first."""

    @abstractmethod
    async def children(self, delivery_id: int) -> Sequence[DeliveryState]:
        """What follows it, by id."""

    @abstractmethod
    async def make_due(self) -> None:
        """Let all time pass for which work waits."""

    @abstractmethod
    async def lapse_leases(self) -> None:
        """Let every lease run out."""

    @abstractmethod
    async def pass_expiry(self) -> None:
        """Let all time pass after which work must not be sent."""

    @abstractmethod
    async def cancel(self, notification: UUID) -> None:
        """Cancel a notification."""

    @abstractmethod
    async def receive(
        self, delivery_id: int, provider_id: str, receipt: FinalReceipt
    ) -> ReceiptResult:
        """Take in a provider's receipt."""

    async def add_one(self, **fields: Any) -> int:
        """Add a plain delivery."""
        return await self.add({"channel": LANE, "recipient": "kim", **fields})

    async def claim_all(self, lane: str = LANE) -> Sequence[Work[Message]]:
        """Claim what is due of a lane, up to a hundred."""
        return await claim(self.box, lane)

    async def claim_one(self, lane: str = LANE) -> Work[Message]:
        """Claim the one piece of work that is due."""
        (work,) = await claim(self.box, lane)
        return work

    async def finish(
        self, work: Work[Message], outcome: Outcome, *, at_most_once: bool = False
    ) -> bool:
        """Settle as a relay would; whether it landed."""
        settlement = decide(work, outcome, RETRY, at_most_once=at_most_once)
        return await self.box.settle([settlement], None) == {work.id}

    async def send(self, delivery_id: int, outcome: Outcome, *, lane: str = LANE) -> DeliveryState:
        """Claim what is due, and settle this one so; how it stands then."""
        works = {work.id: work for work in await self.claim_all(lane)}
        assert await self.finish(works[delivery_id], outcome)
        return await self.read(delivery_id)

    async def rescue_one(self) -> Work[Message]:
        """Let the leases run out and take over the one piece of work."""
        await self.lapse_leases()
        (work,) = await self.box.rescue(LANE, limit=10, lease=LEASE, worker="rescuer")
        return work


async def claim(
    box: Box[Message],
    lane: str = LANE,
    *,
    limit: int = 100,
    worker: str = "worker",
    policy: ChannelPolicy[Message] | None = None,
) -> Sequence[Work[Message]]:
    """Claim as a relay does: again where the box says that more may be waiting."""
    found = await box.claim(lane, limit=limit, lease=LEASE, worker=worker, policy=policy)
    if found.look_again and not found.works:
        found = await box.claim(lane, limit=limit, lease=LEASE, worker=worker, policy=policy)
    return found.works


class BoxConformance:
    """Claiming, settling, rescuing and all that follows from it."""

    # Claiming

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

    # Settling

    async def test_a_delivered_one_is_done(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()

        state = await harness.send(delivery, Outcome.delivered(provider_id="p-1", http_status=200))

        assert (state.status, state.claimed, state.waits) == ("SUCCESS", False, None)
        assert (state.retry_count, state.provider_id) == (0, "p-1")
        (attempt,) = await harness.attempts(delivery)
        assert (attempt.finished, attempt.outcome, attempt.http_status) == (True, "DELIVERED", 200)
        assert attempt.provider_id == "p-1"
        assert await claim(harness.box) == []

    async def test_an_accepted_one_waits_for_its_receipt(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()

        state = await harness.send(delivery, Outcome.accepted(provider_id="p-1"))

        assert (state.status, state.claimed, state.waits) == ("ACCEPTED", False, None)
        assert await claim(harness.box) == []

    async def test_a_failed_one_waits_for_its_retry(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()

        state = await harness.send(delivery, FAILED)

        assert (state.status, state.claimed, state.retry_count) == ("FAILED", False, 1)
        assert (state.error_code, state.last_error) == ("http_500", "the other side is ill")
        assert state.waits is not None
        assert 50 < state.waits <= 60
        assert await claim(harness.box) == []

        await harness.make_due()
        work = await harness.claim_one()
        assert (work.attempt_no, work.retry_count, work.content.reason) == (2, 1, "http_500")
        assert await harness.finish(work, WELL)
        log = await harness.attempts(delivery)
        assert [attempt.outcome for attempt in log] == ["RETRY", "DELIVERED"]
        state = await harness.read(delivery)
        assert (state.status, state.error_code, state.last_error) == ("SUCCESS", None, None)

    async def test_the_last_attempt_that_fails_buries(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one(max_attempts=3)

        seen = []
        for _ in range(3):
            await harness.make_due()
            seen.append((await harness.send(delivery, FAILED)).status)

        assert seen == ["FAILED", "FAILED", "DEAD"]
        state = await harness.read(delivery)
        assert (state.attempts, state.retry_count, state.waits) == (3, 3, None)
        assert state.error_code == "http_500"

    async def test_a_refused_one_is_dead_at_once(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()

        state = await harness.send(delivery, REFUSED)

        assert (state.status, state.error_code, state.waits) == ("DEAD", "http_400", None)

    async def test_a_snooze_spends_nothing(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one(max_attempts=1)

        for number in range(1, 4):
            await harness.make_due()
            state = await harness.send(delivery, Outcome.snooze("quiet_hours", 7200.0))
            assert (state.status, state.attempts, state.retry_count) == ("PENDING", number, 0)
            assert state.error_code == "quiet_hours"
            assert state.waits is not None
            assert 7100 < state.waits <= 7200

        log = await harness.attempts(delivery)
        assert [attempt.outcome for attempt in log] == ["SNOOZED"] * 3

    async def test_a_fault_of_ours_spends_nothing(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one(max_attempts=1)

        state = await harness.send(delivery, Outcome.fault("internal_error", "a bug"))

        assert (state.status, state.retry_count, state.error_code) == (
            "PENDING",
            0,
            "internal_error",
        )
        assert state.waits is not None
        assert state.waits > 0

    async def test_released_work_is_due_at_once(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()

        state = await harness.send(delivery, Outcome.released())

        assert (state.status, state.retry_count) == ("PENDING", 0)
        assert state.waits is not None
        assert state.waits <= 0
        assert (await harness.claim_one()).id == delivery

    async def test_a_skipped_one_says_why(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()

        state = await harness.send(delivery, Outcome.skip("reservation_cancelled"))

        assert (state.status, state.error_code) == ("SKIPPED", "reservation_cancelled")
        assert await claim(harness.box) == []

    async def test_an_uncertain_one_is_held_where_it_must_not_go_twice(
        self, harness: BoxHarness
    ) -> None:
        delivery = await harness.add_one()
        work = await harness.claim_one()

        await harness.finish(work, Outcome.cut_short("lease_expired"), at_most_once=True)

        state = await harness.read(delivery)
        assert (state.status, state.error_code, state.claimed) == ("HELD", "lease_expired", False)
        assert await claim(harness.box) == []

    async def test_a_batch_lands_as_far_as_it_is_held(self, harness: BoxHarness) -> None:
        ids = [await harness.add_one() for _ in range(3)]
        works = await harness.claim_all()
        lost = works[1]
        assert await harness.finish(lost, WELL)

        landed = await harness.box.settle([decide(work, REFUSED, RETRY) for work in works], None)

        assert landed == set(ids) - {lost.id}
        assert (await harness.read(lost.id)).status == "SUCCESS"

    async def test_a_settle_lands_once(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one(then=[{"channel": "SLACK", "max_attempts": 8}])
        work = await harness.claim_one()

        assert await harness.finish(work, WELL)
        assert not await harness.finish(work, WELL)
        assert not await harness.finish(work, REFUSED)

        assert (await harness.read(delivery)).status == "SUCCESS"
        assert len(await harness.children(delivery)) == 1

    async def test_texts_that_cannot_be_stored_do_not_hold_up_their_batch(
        self, harness: BoxHarness
    ) -> None:
        bad = [
            Outcome.refused("nul\x00", "a \x00 b", response="\x00", provider_id="p\x00"),
            Outcome.refused("half \ud83d", "half \udc00", response="\udfff \ud800"),
            Outcome.retry("long " * 1000, "e" * 1_000_000, response="r" * 1_000_000),
            Outcome.refused("quotes", "{\"',\\}", response="NULL", provider_id="{}"),
            Outcome.refused("empty", "", response="", provider_id=""),
            Outcome.refused("emoji", "👩‍👩‍👧‍👦 \u202e", provider_message_id="i" * 100_000),
        ]
        ids = [await harness.add_one() for _ in range(len(bad) + 2)]
        works = await harness.claim_all()
        outcomes = [WELL, *bad, WELL]

        landed = await harness.box.settle(
            [decide(work, outcome, RETRY) for work, outcome in zip(works, outcomes, strict=True)],
            None,
        )

        assert landed == set(ids)
        for delivery, outcome in zip(ids, outcomes, strict=True):
            (attempt,) = await harness.attempts(delivery)
            assert attempt.outcome == outcome.kind
            for text in (attempt.error, attempt.error_code, attempt.provider_id):
                assert "\x00" not in (text or "")
                assert len(text or "") <= 2000
            assert len(attempt.response or "") <= RESPONSE_LIMIT
        assert (await harness.read(ids[4])).last_error == "{\"',\\}"

    # Leases

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

    # Time

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

    # Children

    async def test_what_follows_a_success_all_comes(self, harness: BoxHarness) -> None:
        steps = [{"channel": "SLACK"}, {"channel": "EMAIL", "recipient": "lee"}]
        parent = await harness.add_one(then=_entries(steps), fallback=_entries([{"channel": "X"}]))

        await harness.send(parent, WELL)

        slack, email = await harness.children(parent)
        assert (slack.channel, email.channel, email.recipient) == ("SLACK", "EMAIL", "lee")
        assert {slack.step, email.step} == {"then"}
        assert (slack.status, email.status) == ("PENDING", "PENDING")
        assert (await harness.read(parent)).superseded_by is None
        assert (await harness.claim_one("SLACK")).id == slack.id
        assert (await harness.claim_one("EMAIL")).id == email.id

    async def test_nothing_follows_while_a_receipt_is_to_come(self, harness: BoxHarness) -> None:
        parent = await harness.add_one(then=_entries([{"channel": "SLACK"}]))

        await harness.send(parent, Outcome.accepted(provider_id="p-1"))

        assert await harness.children(parent) == []

    @pytest.mark.parametrize("outcome", [FAILED, Outcome.snooze("later", 5.0), Outcome.skip("no")])
    async def test_nothing_follows_what_is_neither_done_nor_dead(
        self, harness: BoxHarness, outcome: Outcome
    ) -> None:
        entry = {"channel": "SLACK"}
        parent = await harness.add_one(then=_entries([entry]), fallback=_entries([entry]))

        await harness.send(parent, outcome)

        assert await harness.children(parent) == []

    async def test_a_fallback_chain_goes_to_its_end(self, harness: BoxHarness) -> None:
        chain = _entries([{"channel": name, "recipient": name.lower()} for name in "ABC"])
        parent = await harness.add_one(fallback=chain)

        current, lane, met = parent, LANE, []
        for name in "ABC":
            await harness.send(current, REFUSED, lane=lane)
            (child,) = await harness.children(current)
            assert (await harness.read(current)).superseded_by == child.id
            assert (child.step, child.channel, child.recipient) == ("fallback", name, name.lower())
            met.append(child.channel)
            current, lane = child.id, name
        last = await harness.send(current, REFUSED, lane="C")

        assert met == ["A", "B", "C"]
        assert (last.status, last.superseded_by) == ("DEAD", None)
        assert await harness.children(current) == []

    async def test_a_fallback_that_succeeds_ends_the_chain(self, harness: BoxHarness) -> None:
        parent = await harness.add_one(fallback=_entries([{"channel": "A"}, {"channel": "B"}]))
        await harness.send(parent, REFUSED)
        (a,) = await harness.children(parent)

        await harness.send(a.id, WELL, lane="A")

        assert await harness.children(a.id) == []

    async def test_a_steps_own_fallbacks_come_before_the_rest_of_the_chain(
        self, harness: BoxHarness
    ) -> None:
        parent = await harness.add_one(
            fallback=_entries(
                [
                    {"channel": "A", "fallback": [{"channel": "A1"}], "then": [{"channel": "T"}]},
                    {"channel": "B"},
                ]
            )
        )

        current, lane = parent, LANE
        for name in ("A", "A1", "B"):
            await harness.send(current, REFUSED, lane=lane)
            (child,) = await harness.children(current)
            assert child.channel == name
            current, lane = child.id, name

    async def test_steps_nest_to_any_depth(self, harness: BoxHarness) -> None:
        innermost = {"channel": "D"}
        parent = await harness.add_one(
            then=_entries(
                [
                    {
                        "channel": "A",
                        "fallback": [
                            {"channel": "B", "then": [{"channel": "C", "then": [innermost]}]}
                        ],
                    }
                ]
            )
        )

        current, lane = parent, LANE
        for name, outcome in (("A", WELL), ("B", REFUSED), ("C", WELL), ("D", WELL)):
            await harness.send(current, outcome, lane=lane)
            (child,) = await harness.children(current)
            assert child.channel == name
            current, lane = child.id, name

    async def test_children_of_one_batch_keep_to_their_parents(self, harness: BoxHarness) -> None:
        parents = [
            await harness.add_one(fallback=_entries([{"channel": "A", "recipient": f"to {n}"}]))
            for n in range(20)
        ]
        works = await harness.claim_all()

        await harness.box.settle([decide(work, REFUSED, RETRY) for work in works], None)

        for number, parent in enumerate(parents):
            (child,) = await harness.children(parent)
            assert child.recipient == f"to {number}"
            assert (await harness.read(parent)).superseded_by == child.id

    async def test_children_have_their_own_number_of_attempts(self, harness: BoxHarness) -> None:
        parent = await harness.add_one(then=[{"channel": "A", "max_attempts": 2}])

        await harness.send(parent, WELL)

        assert (await harness.claim_one("A")).max_attempts == 2

    async def test_children_of_a_cancelled_notification_are_born_cancelled(
        self, harness: BoxHarness
    ) -> None:
        notification = uuid7()
        steps = _entries([{"channel": "A"}])
        parents = [
            await harness.add(
                {"channel": LANE, "then": steps, "fallback": steps}, notification=notification
            )
            for _ in range(2)
        ]
        works = await harness.claim_all()
        waiting = await harness.add({"channel": LANE}, notification=notification)

        await harness.cancel(notification)
        await harness.finish(works[0], WELL)
        await harness.finish(works[1], REFUSED)

        assert (await harness.read(waiting)).status == "CANCELED"
        for parent in parents:
            (child,) = await harness.children(parent)
            assert child.status == "CANCELED"
        assert await claim(harness.box, "A") == []

    async def test_a_fallback_whose_row_key_is_taken_is_not_made(self, harness: BoxHarness) -> None:
        await harness.add({"channel": "SHEET", "row_key": "A-1024"})
        parent = await harness.add_one(
            fallback=_entries([{"channel": "SHEET", "row_key": "A-1024"}]),
            then=_entries([{"channel": "SHEET", "row_key": "A-1024"}]),
        )

        state = await harness.send(parent, REFUSED)

        assert (state.status, state.superseded_by) == ("DEAD", None)
        assert await harness.children(parent) == []

    # Receipts

    async def test_a_receipt_of_arrival_ends_an_accepted_one(self, harness: BoxHarness) -> None:
        parent = await harness.add_one(then=_entries([{"channel": "A"}]))
        await harness.send(parent, Outcome.accepted(provider_id="p-1"))

        assert await harness.receive(parent, "p-1", "DELIVERED") is ReceiptResult.APPLIED

        state = await harness.read(parent)
        assert (state.status, state.receipt_status) == ("SUCCESS", "DELIVERED")
        assert [child.channel for child in await harness.children(parent)] == ["A"]
        (attempt,) = await harness.attempts(parent)
        assert (attempt.outcome, attempt.receipt_status) == ("ACCEPTED", "DELIVERED")

    async def test_a_receipt_of_failure_runs_the_fallback(self, harness: BoxHarness) -> None:
        parent = await harness.add_one(fallback=_entries([{"channel": "A"}]))
        await harness.send(parent, Outcome.accepted(provider_id="p-1"))

        assert await harness.receive(parent, "p-1", "FAILED") is ReceiptResult.APPLIED

        state = await harness.read(parent)
        (child,) = await harness.children(parent)
        assert (state.status, state.error_code) == ("DEAD", "receipt_failed")
        assert state.superseded_by == child.id

    async def test_the_first_receipt_counts(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()
        await harness.send(delivery, Outcome.accepted(provider_id="p-1"))
        await harness.receive(delivery, "p-1", "DELIVERED")

        assert await harness.receive(delivery, "p-1", "FAILED") is ReceiptResult.REPEATED

        assert (await harness.read(delivery)).status == "SUCCESS"

    async def test_a_receipt_nobody_knows_changes_nothing(self, harness: BoxHarness) -> None:
        delivery = await harness.add_one()
        await harness.send(delivery, Outcome.accepted(provider_id="p-1"))

        assert await harness.receive(delivery, "p-2", "FAILED") is ReceiptResult.UNKNOWN
        assert await harness.receive(delivery + 1000, "p-1", "FAILED") is ReceiptResult.UNKNOWN

        assert (await harness.read(delivery)).status == "ACCEPTED"

    @pytest.mark.parametrize("told_again", [True, False])
    async def test_a_receipt_before_the_settle_is_read_by_it(
        self, harness: BoxHarness, told_again: bool
    ) -> None:
        delivery = await harness.add_one(then=_entries([{"channel": "A"}]))
        work = await harness.claim_one()
        await harness.box.record_provider_id([work], "p-1")

        assert await harness.receive(delivery, "p-1", "DELIVERED") is ReceiptResult.STORED
        assert (await harness.read(delivery)).status == "PROCESSING"
        outcome = Outcome.accepted(provider_id="p-1" if told_again else None)
        assert await harness.finish(work, outcome)

        assert (await harness.read(delivery)).status == "SUCCESS"
        assert len(await harness.children(delivery)) == 1

    async def test_a_receipt_of_an_older_attempt_touches_that_attempt_only(
        self, harness: BoxHarness
    ) -> None:
        delivery = await harness.add_one()
        old = await harness.claim_one()
        await harness.box.record_provider_id([old], "p-1")
        await harness.finish(old, FAILED)
        await harness.make_due()
        new = await harness.claim_one()

        assert await harness.receive(delivery, "p-1", "FAILED") is ReceiptResult.NOTED
        await harness.finish(new, Outcome.accepted(provider_id="p-2"))

        state = await harness.read(delivery)
        assert (state.status, state.receipt_status) == ("ACCEPTED", None)
        log = await harness.attempts(delivery)
        assert [attempt.receipt_status for attempt in log] == ["FAILED", None]

    async def test_a_receipt_of_an_attempt_that_failed_is_not_read_by_the_next(
        self, harness: BoxHarness
    ) -> None:
        delivery = await harness.add_one()
        old = await harness.claim_one()
        await harness.box.record_provider_id([old], "p-1")
        await harness.receive(delivery, "p-1", "FAILED")
        await harness.finish(old, Outcome.unknown("timeout"))
        await harness.make_due()

        state = await harness.send(delivery, Outcome.accepted(provider_id="p-2"))

        assert (state.status, state.receipt_status) == ("ACCEPTED", None)

    # Policies

    async def test_what_a_policy_refuses_at_the_claim_is_claimed_and_told(
        self, harness: BoxHarness
    ) -> None:
        first, second = await harness.add_one(), await harness.add_one()
        refusal = Outcome.refused("insufficient_balance")

        class Poor(OpenPolicy):
            async def on_attempt(
                self, tx: Any, batch: Sequence[Work[Any]]
            ) -> Mapping[int, Outcome]:
                return {work.id: refusal for work in batch if work.id == first}

        found = await harness.box.claim(LANE, limit=10, lease=LEASE, worker="w", policy=Poor())

        assert {work.id for work in found.works} == {first, second}
        assert found.refused == {first: refusal}

    async def test_a_policy_that_fails_at_the_claim_takes_it_back(
        self, harness: BoxHarness
    ) -> None:
        delivery = await harness.add_one()

        class Broken(OpenPolicy):
            async def on_attempt(
                self, tx: Any, batch: Sequence[Work[Any]]
            ) -> Mapping[int, Outcome]:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await claim(harness.box, policy=Broken())

        state = await harness.read(delivery)
        assert (state.status, state.attempts, state.claimed) == ("PENDING", 0, False)
        assert await harness.attempts(delivery) == []
        assert (await harness.claim_one()).id == delivery

    async def test_a_policy_hears_what_landed_and_may_take_it_back(
        self, harness: BoxHarness
    ) -> None:
        for _ in range(2):
            await harness.add_one(then=_entries([{"channel": "A"}]))
        works = await harness.claim_all()
        stale = decide(works[0], WELL, RETRY)
        await harness.finish(works[0], WELL)
        heard: list[Settlement[Any]] = []

        class Listening(OpenPolicy):
            def __init__(self, *, fails: bool) -> None:
                self.fails = fails

            async def on_settle(self, tx: Any, settled: Sequence[Settlement[Any]]) -> None:
                heard.extend(settled)
                if self.fails:
                    raise ZeroDivisionError

        both = [stale, decide(works[1], WELL, RETRY)]
        with pytest.raises(ZeroDivisionError):
            await harness.box.settle(both, Listening(fails=True))

        assert (await harness.read(works[1].id)).status == "PROCESSING"
        assert await harness.children(works[1].id) == []
        heard.clear()
        assert await harness.box.settle(both, Listening(fails=False)) == {works[1].id}
        assert [(one.work.id, one.transition) for one in heard] == [
            (works[1].id, Transition.COMPLETE)
        ]
        assert len(await harness.children(works[1].id)) == 1

    # Figures

    async def test_the_backlog_counts_by_lane(self, harness: BoxHarness) -> None:
        dead, failed = await harness.add_one(), await harness.add_one()
        works = {work.id: work for work in await harness.claim_all()}
        await harness.finish(works[dead], REFUSED)
        await harness.finish(works[failed], FAILED)
        await harness.add({"channel": LANE}, due_in=-30.0)
        await harness.add({"channel": "SLACK"}, due_in=600.0)

        backlog = await harness.box.backlog()

        assert (backlog[LANE].waiting, backlog[LANE].failed, backlog[LANE].dead) == (1, 1, 1)
        age = backlog[LANE].oldest_due_age
        assert age is not None
        assert 30 <= age < 300
        assert (backlog["SLACK"].waiting, backlog["SLACK"].oldest_due_age) == (1, None)


def _entries(steps: Sequence[Entry]) -> list[dict[str, Any]]:
    """Steps as they are stored: complete, to any depth."""
    return [
        {
            **step,
            "max_attempts": step.get("max_attempts", 8),
            **{name: _entries(step[name]) for name in ("then", "fallback") if name in step},
        }
        for step in steps
    ]
