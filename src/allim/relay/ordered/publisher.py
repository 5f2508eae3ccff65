"""What the ordered engine asks of whoever takes messages out into the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from allim.relay.ordered.message import Ordered
from allim.relay.outcomes import Outcome, OutcomeKind

Published = TypeVar("Published", bound=Ordered, contravariant=True)

MaySend = Callable[[], bool]
"""Asked before each message is let go: False once the lease may have run out."""

DELIVERED = Outcome.delivered()
NOT_TRIED = Outcome.released()
"""It was not let go: one before it in its line failed, or the lease has run out."""
NOT_HAD = frozenset({OutcomeKind.FAULT, OutcomeKind.UNKNOWN})
"""The other side cannot be had: what comes after it in a batch would fare no better."""


class Superseded(Exception):
    """Another relay has fenced this one: its lease is lost, whatever its own clock says."""


class Publisher(Protocol[Published]):
    """Publishes batches, each line in order.

    What the outcomes mean: DELIVERED it is out. RETRY the other side failed on this message;
    REFUSED it never will take it. SNOOZED it can't be sent yet by our own fault (a key that is
    missing): its line waits, nothing is spent. FAULT the other side cannot be had at all: nothing
    is spent, and this publisher is left alone for a while. RELEASED it was not tried. UNKNOWN it
    may be out; it is tried again and nothing is spent.

    No message goes out after one of its line failed, until a later batch brings both again.
    Nothing is raised for what the other side does, but for Superseded.
    """

    @property
    def name(self) -> str:
        """A word for metrics and logs."""

    def begin(self, relay: str) -> None:
        """Publish in the name of this incarnation of the relay from now on."""

    async def fence(self, relay: str) -> None:
        """Let out nothing any more of what an incarnation that ended may still send.

        Where the other side knows no such thing it returns at once: what comes late are repeats.
        Raises where it can't be done now.
        """

    async def publish(self, batch: Sequence[Published], may_send: MaySend) -> Sequence[Outcome]:
        """Publish a batch; one outcome for each message, in the same order."""

    async def purge(self) -> None:
        """Let go of nothing more of what was handed over; batches under way end soon."""

    async def close(self) -> None:
        """Give back what is held."""

    async def diagnose(self) -> str | None:
        """What is wrong with it; None where all is well."""
