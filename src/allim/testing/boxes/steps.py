"""Children: what follows a success, what replaces a dead letter."""

from __future__ import annotations

import pytest

from allim.base.ids import uuid7
from allim.relay.outcomes import Outcome
from allim.relay.settlement import decide
from allim.testing.boxes.harness import (
    FAILED,
    LANE,
    REFUSED,
    RETRY,
    WELL,
    BoxHarness,
    claim,
    complete_steps,
)


class StepCases:
    """Children: what follows a success, what replaces a dead letter."""

    async def test_what_follows_a_success_all_comes(self, harness: BoxHarness) -> None:
        steps = [{"channel": "SLACK"}, {"channel": "EMAIL", "recipient": "lee"}]
        parent = await harness.add_one(
            then=complete_steps(steps), fallback=complete_steps([{"channel": "X"}])
        )

        await harness.send(parent, WELL)

        slack, email = await harness.children(parent)
        assert (slack.channel, email.channel, email.recipient) == ("SLACK", "EMAIL", "lee")
        assert {slack.step, email.step} == {"then"}
        assert (slack.status, email.status) == ("PENDING", "PENDING")
        assert (await harness.read(parent)).superseded_by is None
        assert (await harness.claim_one("SLACK")).id == slack.id
        assert (await harness.claim_one("EMAIL")).id == email.id

    async def test_nothing_follows_while_a_receipt_is_to_come(self, harness: BoxHarness) -> None:
        parent = await harness.add_one(then=complete_steps([{"channel": "SLACK"}]))

        await harness.send(parent, Outcome.accepted(provider_id="p-1"))

        assert await harness.children(parent) == []

    @pytest.mark.parametrize("outcome", [FAILED, Outcome.snooze("later", 5.0), Outcome.skip("no")])
    async def test_nothing_follows_what_is_neither_done_nor_dead(
        self, harness: BoxHarness, outcome: Outcome
    ) -> None:
        entry = {"channel": "SLACK"}
        parent = await harness.add_one(
            then=complete_steps([entry]), fallback=complete_steps([entry])
        )

        await harness.send(parent, outcome)

        assert await harness.children(parent) == []

    async def test_a_fallback_chain_goes_to_its_end(self, harness: BoxHarness) -> None:
        chain = complete_steps([{"channel": name, "recipient": name.lower()} for name in "ABC"])
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
        parent = await harness.add_one(
            fallback=complete_steps([{"channel": "A"}, {"channel": "B"}])
        )
        await harness.send(parent, REFUSED)
        (a,) = await harness.children(parent)

        await harness.send(a.id, WELL, lane="A")

        assert await harness.children(a.id) == []

    async def test_a_steps_own_fallbacks_come_before_the_rest_of_the_chain(
        self, harness: BoxHarness
    ) -> None:
        parent = await harness.add_one(
            fallback=complete_steps(
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
            then=complete_steps(
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
            await harness.add_one(
                fallback=complete_steps([{"channel": "A", "recipient": f"to {n}"}])
            )
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
        steps = complete_steps([{"channel": "A"}])
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
            fallback=complete_steps([{"channel": "SHEET", "row_key": "A-1024"}]),
            then=complete_steps([{"channel": "SHEET", "row_key": "A-1024"}]),
        )

        state = await harness.send(parent, REFUSED)

        assert (state.status, state.superseded_by) == ("DEAD", None)
        assert await harness.children(parent) == []
