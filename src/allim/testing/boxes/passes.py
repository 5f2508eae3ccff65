"""Single passes over a lane: what is due goes out once, and nothing stays claimed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from allim.channels.channel import Message
from allim.relay.lane import Lane
from allim.relay.outcomes import Outcome
from allim.relay.rates import RESERVED
from allim.relay.sender import RateLimit, RecordProviderId, SendingLimits
from allim.relay.single_pass import SinglePass
from allim.relay.work import Work
from allim.testing.boxes.harness import (
    FAILED,
    LANE,
    REFUSED,
    RETRY,
    WELL,
    BoxHarness,
    complete_steps,
)

Answer = Callable[[Work[Message]], Awaitable[Outcome]]


class _Outside:
    """A sender that answers as it is told."""

    only_target: str | None = "outside"

    def __init__(self, answer: Answer, *, rate: RateLimit | None = None, places: int = 8) -> None:
        self.limits = SendingLimits(concurrency=places, rate=rate, retry=RETRY)
        self.sent: list[int] = []
        self._answer = answer

    def target(self, content: Message) -> str:
        return "outside"

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        self.sent += [work.id for work in batch]
        return [await self._answer(work) for work in batch]

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        return None

    async def close(self) -> None:
        pass


def _always(outcome: Outcome) -> Answer:
    async def answer(work: Work[Message]) -> Outcome:
        return outcome

    return answer


def _by_id(outcomes: dict[int, Outcome]) -> Answer:
    async def answer(work: Work[Message]) -> Outcome:
        return outcomes.get(work.id, WELL)

    return answer


class PassCases:
    """Single passes over a lane: what is due goes out once, and nothing stays claimed."""

    async def test_a_pass_sends_as_much_as_it_is_asked_to(self, harness: BoxHarness) -> None:
        ids = [await harness.add_one() for _ in range(5)]
        outside = _Outside(_always(WELL))
        passes = SinglePass(harness.box, clock=harness.process_clock)

        first = await passes.run(Lane(LANE, outside), 3)
        second = await passes.run(Lane(LANE, outside), 3)
        third = await passes.run(Lane(LANE, outside), 3)

        assert [(figures.claimed, figures.sent) for figures in (first, second, third)] == [
            (3, 3),
            (2, 2),
            (0, 0),
        ]
        assert sorted(outside.sent) == ids
        assert first.completed | second.completed == set(ids)
        assert {(await harness.read(one)).status for one in ids} == {"SUCCESS"}

    async def test_a_pass_tells_what_became_of_each(self, harness: BoxHarness) -> None:
        ids = [await harness.add_one() for _ in range(5)]
        snooze = Outcome.snooze("quiet_hours", 600.0)
        skip = Outcome.skip("canceled_reservation")
        outside = _Outside(_by_id({ids[0]: FAILED, ids[1]: REFUSED, ids[2]: snooze, ids[3]: skip}))

        figures = await SinglePass(harness.box, clock=harness.process_clock).run(
            Lane(LANE, outside), 50
        )

        assert (figures.claimed, figures.sent, figures.failed, figures.dead) == (5, 1, 1, 1)
        assert (figures.snoozed, figures.skipped) == (1, 1)
        assert [(await harness.read(one)).status for one in ids] == [
            "FAILED",
            "DEAD",
            "PENDING",
            "SKIPPED",
            "SUCCESS",
        ]
        again = await SinglePass(harness.box, clock=harness.process_clock).run(
            Lane(LANE, outside), 50
        )
        assert again.claimed == 0

    async def test_retries_that_are_due_fill_a_whole_pass(self, harness: BoxHarness) -> None:
        ids = [await harness.add_one() for _ in range(6)]
        passes = SinglePass(harness.box, clock=harness.process_clock)
        await passes.run(Lane(LANE, _Outside(_always(FAILED))), 6)
        await harness.make_due()

        figures = await passes.run(Lane(LANE, outside := _Outside(_always(WELL))), 6)

        assert (figures.claimed, figures.sent) == (6, 6)
        assert sorted(outside.sent) == ids

    async def test_what_is_put_off_for_no_time_goes_out_once_in_a_pass(
        self, harness: BoxHarness
    ) -> None:
        for _ in range(4):
            await harness.add_one()
        outside = _Outside(_always(Outcome.snooze("not_yet", 0.0)))

        figures = await SinglePass(harness.box, clock=harness.process_clock).run(
            Lane(LANE, outside), 50
        )

        assert (figures.claimed, figures.snoozed, len(set(outside.sent))) == (4, 4, 4)
        assert len(outside.sent) == 4

    async def test_a_pass_takes_over_what_a_dead_relay_left(self, harness: BoxHarness) -> None:
        left = await harness.add_one()
        await harness.claim_one()
        await harness.lapse_leases()

        outside = _Outside(_always(WELL))
        figures = await SinglePass(harness.box, clock=harness.process_clock).run(
            Lane(LANE, outside), 5
        )

        state = await harness.read(left)
        assert (state.status, state.rescue_count, figures.sent) == ("SUCCESS", 1, 1)

    async def test_what_has_expired_is_ended_and_not_sent(self, harness: BoxHarness) -> None:
        late = await harness.add({"channel": LANE, "recipient": "kim"}, expires_in=3600.0)
        await harness.pass_expiry()

        outside = _Outside(_always(WELL))
        figures = await SinglePass(harness.box, clock=harness.process_clock).run(
            Lane(LANE, outside), 5
        )

        assert (figures.claimed, outside.sent) == (0, [])
        assert (await harness.read(late)).status == "EXPIRED"

    async def test_children_wait_for_a_pass_of_their_own_lane(self, harness: BoxHarness) -> None:
        parent = await harness.add_one(then=complete_steps([{"channel": "SLACK"}]))
        passes = SinglePass(harness.box, clock=harness.process_clock)
        outside = _Outside(_always(WELL))

        await passes.run(Lane(LANE, outside), 5)
        (child,) = await harness.children(parent)
        assert child.status == "PENDING"
        figures = await passes.run(Lane("SLACK", outside), 5)

        assert (figures.sent, outside.sent) == (1, [parent, child.id])

    async def test_passes_beside_each_other_never_send_twice(self, harness: BoxHarness) -> None:
        ids = [await harness.add_one() for _ in range(60)]
        outside = _Outside(_always(WELL))

        figures = await asyncio.gather(
            *(
                SinglePass(box, clock=harness.process_clock).run(Lane(LANE, outside), 25)
                for box in (harness.box, *(harness.another() for _ in range(3)))
            )
        )

        assert sorted(outside.sent) == ids
        assert sum(one.sent for one in figures) == 60

    async def test_a_pass_that_is_cancelled_leaves_nothing_claimed(
        self, harness: BoxHarness
    ) -> None:
        ids = [await harness.add_one() for _ in range(6)]
        calling = asyncio.Event()

        async def hang(work: Work[Message]) -> Outcome:
            calling.set()
            await asyncio.Event().wait()
            return WELL

        passes = SinglePass(harness.box, clock=harness.process_clock)
        running = asyncio.create_task(passes.run(Lane(LANE, _Outside(hang, places=2)), 6))
        await calling.wait()
        running.cancel()
        await asyncio.wait([running])

        assert running.cancelled()
        for one in ids:
            state = await harness.read(one)
            assert (state.status, state.claimed, state.retry_count) == ("PENDING", False, 0)

    async def test_what_waits_for_its_turn_is_released_by_a_cancel(
        self, harness: BoxHarness
    ) -> None:
        ids = [await harness.add_one() for _ in range(4)]
        calling = asyncio.Event()

        async def hang(work: Work[Message]) -> Outcome:
            calling.set()
            await asyncio.Event().wait()
            return WELL

        # The first goes at once, the next ones wait for their places, the last is too far off.
        outside = _Outside(hang, rate=RateLimit(0.1))
        passes = SinglePass(harness.box, clock=harness.process_clock)
        running = asyncio.create_task(passes.run(Lane(LANE, outside), 6))
        await calling.wait()
        running.cancel()
        await asyncio.wait([running])

        states = [await harness.read(one) for one in ids]
        assert {(state.status, state.claimed) for state in states} == {("PENDING", False)}
        assert {state.error_code for state in states} == {"shutdown", "released", RESERVED}
