"""Boxes in memory for relays to empty, and what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from allim.channels.channel import Message
from allim.hub.status import DeliveryStatus
from allim.relay.box import Claim
from allim.relay.outcomes import Outcome
from allim.relay.policy import ChannelPolicy
from allim.testing.boxes import LANE
from allim.testing.memory_box import MemoryBox
from tests.relay.virtual_time import loop_clock, until

FINAL = {
    DeliveryStatus.SUCCESS,
    DeliveryStatus.DEAD,
    DeliveryStatus.SKIPPED,
    DeliveryStatus.HELD,
    DeliveryStatus.CANCELED,
}
FAILED = Outcome.retry("http_500", http_status=500)


def a_box() -> MemoryBox:
    return MemoryBox(clock=loop_clock)


def fill(box: MemoryBox, count: int, recipient: str = "kim", **fields: Any) -> list[int]:
    return [box.add(LANE, recipient=recipient, **fields) for _ in range(count)]


def statuses(box: MemoryBox, ids: Sequence[int] | None = None) -> list[DeliveryStatus]:
    return [box.deliveries[number].status for number in ids or box.deliveries]


def gaps_between(times: Sequence[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise(times)]


async def until_final(box: MemoryBox, ids: Sequence[int] | None = None) -> None:
    await until(lambda: set(statuses(box, ids)) <= FINAL)


class CountingBox(MemoryBox):
    """A box that counts claims and may be out of reach."""

    def __init__(self) -> None:
        super().__init__(clock=loop_clock)
        self.claims: list[float] = []
        self.error: Exception | None = None

    async def claim(
        self,
        lane: str,
        *,
        limit: int,
        lease: float,
        worker: str,
        policy: ChannelPolicy[Message] | None,
    ) -> Claim[Message]:
        self.claims.append(loop_clock())
        if self.error is not None:
            raise self.error
        return await super().claim(lane, limit=limit, lease=lease, worker=worker, policy=policy)

    async def next_due(self, lane: str) -> float | None:
        if self.error is not None:
            raise self.error
        return await super().next_due(lane)
