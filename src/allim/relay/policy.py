"""What a feature may add to a lane: a say before the send, and a hand in both transactions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from allim.relay.outcomes import Outcome
from allim.relay.settlement import Settlement
from allim.relay.work import Content, Work

Transaction = Any
"""The box's own transaction: a psycopg AsyncConnection for PostgreSQL boxes."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What a policy has settled of its own accord, beside what it was told of.

    The box tells of it once the transaction is committed; `lanes` are where that left new work.
    """

    settlements: Sequence[Settlement[Any]] = ()
    lanes: Collection[str] = ()


class ChannelPolicy(Protocol[Content]):
    """Rules of one lane that are neither the engine's nor the sender's.

    Each method answers with outcomes for the work it has something against, by work id;
    what it leaves out goes on. Balance, cancellation, quiet hours and disabled targets are
    such policies. A transaction that no hook joins is one round trip shorter.
    """

    @property
    def joins_claim(self) -> bool:
        """Whether `on_attempt` has anything to do."""

    def joins_settle(self, settlements: Sequence[Settlement[Content]]) -> bool:
        """Whether `on_settle` has anything to do with these."""

    async def guard(self, batch: Sequence[Work[Content]]) -> Mapping[int, Outcome]:
        """Asked just before the send. An exception here means: do not send, retry."""

    async def on_attempt(
        self, tx: Transaction, batch: Sequence[Work[Content]]
    ) -> Mapping[int, Outcome]:
        """Inside the claiming transaction: what must be on record if the attempt is."""

    async def on_settle(
        self, tx: Transaction, settled: Sequence[Settlement[Content]]
    ) -> Beside | None:
        """Inside the settling transaction, for those settlements that landed.

        What the box made of them may differ from what was decided: a receipt that came before
        wins, and what was cancelled is not tried again. Whoever must know reads it there.
        Answers what else it has ended by that.
        """

    async def on_receipt(self, tx: Transaction, ended: Sequence[int]) -> None:
        """Inside the transaction in which receipts ended work that had been accepted, by id."""


class OpenPolicy:
    """The policy that has nothing against anything; a base for policies that need one hook."""

    @property
    def joins_claim(self) -> bool:
        """Only where a subclass has an `on_attempt` of its own."""
        return type(self).on_attempt is not OpenPolicy.on_attempt

    def joins_settle(self, settlements: Sequence[Settlement[Any]]) -> bool:
        """Only where a subclass has an `on_settle` of its own."""
        return type(self).on_settle is not OpenPolicy.on_settle

    async def guard(self, batch: Sequence[Work[Any]]) -> Mapping[int, Outcome]:
        """Let everything pass."""
        return {}

    async def on_attempt(
        self, tx: Transaction, batch: Sequence[Work[Any]]
    ) -> Mapping[int, Outcome]:
        """Record nothing."""
        return {}

    async def on_settle(self, tx: Transaction, settled: Sequence[Settlement[Any]]) -> Beside | None:
        """Record nothing."""
        return None

    async def on_receipt(self, tx: Transaction, ended: Sequence[int]) -> None:
        """Record nothing."""


def combine(policies: Sequence[ChannelPolicy[Any]]) -> ChannelPolicy[Any] | None:
    """One policy out of several, asked in order; the first word against a work counts."""
    if not policies:
        return None
    if len(policies) == 1:
        return policies[0]
    return _Combined(policies)


class _Combined:
    def __init__(self, policies: Sequence[ChannelPolicy[Any]]) -> None:
        self._policies = policies

    @property
    def joins_claim(self) -> bool:
        return any(policy.joins_claim for policy in self._policies)

    def joins_settle(self, settlements: Sequence[Settlement[Any]]) -> bool:
        return any(policy.joins_settle(settlements) for policy in self._policies)

    async def guard(self, batch: Sequence[Work[Any]]) -> Mapping[int, Outcome]:
        against: dict[int, Outcome] = {}
        for policy in self._policies:
            rest = [work for work in batch if work.id not in against]
            against.update(await policy.guard(rest) if rest else {})
        return against

    async def on_attempt(
        self, tx: Transaction, batch: Sequence[Work[Any]]
    ) -> Mapping[int, Outcome]:
        against: dict[int, Outcome] = {}
        for policy in self._policies:
            rest = [work for work in batch if work.id not in against]
            against.update(await policy.on_attempt(tx, rest) if rest else {})
        return against

    async def on_settle(self, tx: Transaction, settled: Sequence[Settlement[Any]]) -> Beside | None:
        found = [await policy.on_settle(tx, settled) for policy in self._policies]
        beside = [each for each in found if each is not None]
        if not beside:
            return None
        return Beside(
            [settlement for each in beside for settlement in each.settlements],
            {lane for each in beside for lane in each.lanes},
        )

    async def on_receipt(self, tx: Transaction, ended: Sequence[int]) -> None:
        for policy in self._policies:
            await policy.on_receipt(tx, ended)
