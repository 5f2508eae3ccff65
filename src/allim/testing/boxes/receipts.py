"""Receipts: late, early, repeated, of an older attempt, of nobody's."""

from __future__ import annotations

import pytest

from allim.hub.receipts import ReceiptResult
from allim.relay.outcomes import Outcome
from allim.testing.boxes.harness import FAILED, BoxHarness, complete_steps


class ReceiptCases:
    """Receipts: late, early, repeated, of an older attempt, of nobody's."""

    async def test_a_receipt_of_arrival_ends_an_accepted_one(self, harness: BoxHarness) -> None:
        parent = await harness.add_one(then=complete_steps([{"channel": "A"}]))
        await harness.send(parent, Outcome.accepted(provider_id="p-1"))

        assert await harness.receive(parent, "p-1", "DELIVERED") is ReceiptResult.APPLIED

        state = await harness.read(parent)
        assert (state.status, state.receipt_status) == ("SUCCESS", "DELIVERED")
        assert [child.channel for child in await harness.children(parent)] == ["A"]
        (attempt,) = await harness.attempts(parent)
        assert (attempt.outcome, attempt.receipt_status) == ("ACCEPTED", "DELIVERED")

    async def test_a_receipt_of_failure_runs_the_fallback(self, harness: BoxHarness) -> None:
        parent = await harness.add_one(fallback=complete_steps([{"channel": "A"}]))
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
        delivery = await harness.add_one(then=complete_steps([{"channel": "A"}]))
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
