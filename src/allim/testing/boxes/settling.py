"""Settling: every outcome leads where it should, once."""

from __future__ import annotations

from allim.relay.outcomes import RESPONSE_LIMIT, Outcome
from allim.relay.settlement import decide
from allim.testing.boxes.harness import FAILED, REFUSED, RETRY, WELL, BoxHarness, claim


class SettlingCases:
    """Settling: every outcome leads where it should, once."""

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
