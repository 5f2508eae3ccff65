"""Policies in both transactions, and the figures of a backlog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from allim.relay.outcomes import Outcome
from allim.relay.policy import OpenPolicy
from allim.relay.settlement import Settlement, Transition, decide
from allim.relay.work import Work
from allim.testing.boxes.harness import (
    FAILED,
    LANE,
    LEASE,
    REFUSED,
    RETRY,
    WELL,
    BoxHarness,
    claim,
    complete_steps,
)


class PolicyCases:
    """Policies in both transactions, and the figures of a backlog."""

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
            await harness.add_one(then=complete_steps([{"channel": "A"}]))
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
