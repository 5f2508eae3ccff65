"""What the ordered engine asks of a store of messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol

from allim.relay.low_water import Snapshot
from allim.relay.ordered.message import Line, Message


@dataclass(frozen=True, slots=True)
class Fetched(Generic[Message]):
    """Messages that are ready, slot by slot in the order asked for, each slot in `seq` order.

    Of each slot as many as were asked for of each, or all that is ready above its mark. Where the
    whole limit cut, the last slot is not whole, and those after it were not looked at.
    """

    messages: Sequence[Message]
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Holdings:
    """Which slots an incarnation holds, and how many would be its fair share.

    `unfenced` are the incarnations that ended, by whose publishers something may still come.
    """

    slots: frozenset[int]
    share: int
    unfenced: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Failure(Generic[Message]):
    """A message that was not taken, and why.

    `delay` is in how many seconds it is due again (None: never), `spent` whether it was the
    other side that failed.
    """

    message: Message
    code: str
    detail: str
    delay: float | None = None
    spent: bool = True


@dataclass(frozen=True, slots=True)
class Settlement(Generic[Message]):
    """What became of one turn.

    `retried` and `buried` are heads of their lines, or have none. `parked` wait behind
    them. `drained` are the lines whose parked messages this turn worked on.
    """

    sent: Sequence[Message] = ()
    retried: Sequence[Failure[Message]] = ()
    buried: Sequence[Failure[Message]] = ()
    parked: Sequence[Message] = ()
    drained: Collection[Line] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether everything simply went out."""
        return self.drained is None and not (self.retried or self.buried or self.parked)


@dataclass(frozen=True, slots=True)
class Landed:
    """A settlement that was written: of the lines it touched, which are still blocked.

    The value is in how many seconds the line is due; None where an operator must say so.
    """

    blocked: Mapping[Line, float | None] = field(default_factory=dict)
    freed: Collection[Line] = ()


class FenceKeeper(Protocol):
    """Extends the lease of an incarnation; used from a thread of its own, so not async."""

    def beat(self) -> bool:
        """Extend it; False where it is lost for good. Raises DatabaseUnavailable."""

    def close(self) -> None:
        """Give back the connection."""


class OrderedBox(Protocol[Message]):
    """A store of messages in slots, shared by any number of relays.

    Every write is guarded by the fence: the incarnation's row, its lease by the store's
    own clock. Methods raise DatabaseUnavailable when the store is gone.
    """

    async def register(self, relay: str, lease: float) -> None:
        """Begin an incarnation."""

    def fence_keeper(self, relay: str, lease: float) -> FenceKeeper:
        """A keeper of its lease."""

    async def balance(self, relay: str) -> Holdings | None:
        """Retire the dead, take free slots up to the fair share; None where the lease is lost."""

    async def release(self, relay: str, slots: Collection[int]) -> None:
        """Give slots back, of which nothing is in flight."""

    async def retire(self, relay: str, *, clean: bool) -> None:
        """End an incarnation; its slots are free at once. `clean`: it sends nothing any more."""

    async def fenced(self, relays: Collection[str]) -> None:
        """Of these ended incarnations nothing can come any more."""

    async def fetch(
        self, marks: Sequence[tuple[int, int]], limit: int, *, each: int | None = None
    ) -> Fetched[Message]:
        """What is ready in these slots above these marks; pairs of slot and mark.

        `limit` in all, and no more than `each` of a slot.
        """

    async def blocked(self, slots: Collection[int]) -> set[Line]:
        """The lines of these slots that have parked messages."""

    async def due(
        self, slots: Collection[int], limit: int, *, without: Collection[str] = ()
    ) -> Sequence[Message]:
        """Parked messages that are due, each line in order from its head; without these topics."""

    async def settle(self, relay: str, settlement: Settlement[Message]) -> Landed | None:
        """Write what became of a turn; None where the lease is lost and nothing was written.

        May be repeated: what was written before is not written twice.
        """
