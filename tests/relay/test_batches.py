"""Calls that take much at once, at a rate: work that trickles in goes with what waits already."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

from allim.relay.sender import RateLimit, SendingLimits
from allim.testing.boxes import LANE
from tests.relay.boxes import a_box, statuses, until_final
from tests.relay.outside import EXACT, Outside, after, running
from tests.relay.virtual_time import in_virtual_time, loop_clock

RATE = RateLimit(0.5, burst=2)


@in_virtual_time
async def test_what_trickles_in_goes_out_in_batches_at_the_rate() -> None:
    box = a_box()
    limits = SendingLimits(batch=50, concurrency=1, rate=RATE, retry=EXACT)
    outside = Outside(after(0.001), limits=limits, only_target="kim")
    async with running(box, outside, poll_max_deaf=0.05):
        for _ in range(600):
            box.add(LANE, recipient="kim")
            await asyncio.sleep(0.1)
        ended = loop_clock()
        await until_final(box)

        # One by one at half a call a second it would have been twenty minutes.
        assert loop_clock() - ended < 10
    times = outside.times()
    assert len(times) <= 2 + 70 * RATE.per_second
    assert all(later - sooner > 1.5 for sooner, later in pairwise(times[2:]))
    assert set(Counter(one for call in outside.calls for one in call.ids).values()) == {1}
    assert set(statuses(box)) == {"SUCCESS"}


@in_virtual_time
async def test_a_batch_that_waits_for_its_turn_is_released_by_a_stop() -> None:
    box = a_box()
    limits = SendingLimits(batch=50, concurrency=1, rate=RateLimit(0.1), retry=EXACT)
    outside = Outside(after(0.001), limits=limits, only_target="kim")
    async with running(box, outside, poll_max_deaf=0.05) as relay:
        for _ in range(5):
            box.add(LANE, recipient="kim")
            await asyncio.sleep(0.2)
        await relay.stop()
    states = [(d.status, d.claim_token) for d in box.deliveries.values()]
    assert states[0] == ("SUCCESS", None)
    assert states[1:] == [("PENDING", None)] * 4


@in_virtual_time
async def test_a_full_batch_takes_nothing_more_along() -> None:
    box = a_box()
    limits = SendingLimits(batch=3, concurrency=1, rate=RateLimit(1.0), retry=EXACT)
    outside = Outside(after(0.001), limits=limits, only_target="kim")
    async with running(box, outside, poll_max_deaf=0.05):
        for _ in range(20):
            box.add(LANE, recipient="kim")
            await asyncio.sleep(0.05)
        await until_final(box)
    assert max(len(call.ids) for call in outside.calls) == 3
    assert sum(len(call.ids) for call in outside.calls) == 20
