"""What the engine asks of a store of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol

from allim.relay.outcomes import Outcome
from allim.relay.policy import ChannelPolicy
from allim.relay.settlement import Settlement
from allim.relay.work import Content, Work


@dataclass(frozen=True, slots=True)
class Claim(Generic[Content]):
    """What one claim brought.

    `refused` are works, by id, that the lane's policy had something against inside the
    claiming transaction; they are claimed all the same and settled with that outcome.
    `look_again` says that work may be waiting below the low-water mark: claim again at once.
    """

    works: Sequence[Work[Content]]
    refused: Mapping[int, Outcome] = field(default_factory=dict)
    look_again: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much of a lane waits, and since when (seconds; None where nothing is due)."""

    waiting: int
    failed: int
    dead: int
    oldest_due_age: float | None


class LeaseKeeper(Protocol):
    """Extends leases; used from the heartbeat's own thread, so none of it is async."""

    def extend(self, works: Sequence[Work[Any]], lease: float) -> set[int]:
        """Extend to `lease` seconds from now; the ids of those that are still ours."""

    def close(self) -> None:
        """Give back the connection."""


class Box(Protocol[Content]):
    """A store of work, seen by the relay. Lanes divide it (channels; or one lane for all).

    Every write is guarded by the claim token and says what landed. Methods raise
    DatabaseUnavailable when the database is gone; then nothing was changed, except that
    a settle may have landed (settling again then says so).
    """

    async def claim(
        self,
        lane: str,
        *,
        limit: int,
        lease: float,
        worker: str,
        policy: ChannelPolicy[Content] | None,
    ) -> Claim[Content]:
        """Claim up to `limit` due pieces of work for `lease` seconds, and open their attempts."""

    async def settle(
        self, settlements: Sequence[Settlement[Content]], policy: ChannelPolicy[Content] | None
    ) -> set[int]:
        """Close attempts and move the work on, with all that follows from it, in one transaction.

        Answers the ids that landed. One that did not was taken over by a rescue, or had
        landed before.
        """

    async def record_provider_id(self, works: Sequence[Work[Content]], provider_id: str) -> bool:
        """Store a provider's id on running attempts; False unless all claims are still ours."""

    async def rescue(
        self, lane: str, *, limit: int, lease: float, worker: str
    ) -> Sequence[Work[Content]]:
        """Take over work whose lease ran out: a new token, the same attempt, one more rescue."""

    async def expire(self) -> int:
        """Move work past its `expires_at` to its end; how many."""

    async def next_due(self, lane: str) -> float | None:
        """Seconds until the next timed work of a lane is due; None where there is none."""

    async def backlog(self) -> Mapping[str, Backlog]:
        """Figures by lane, for metrics."""

    def lease_keeper(self) -> LeaseKeeper:
        """A keeper of leases with a connection of its own."""
