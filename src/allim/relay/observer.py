"""What the engine tells of its doings; see telemetry for what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from allim.relay.settlement import Settlement


@dataclass(frozen=True, slots=True)
class Settled:
    """One settlement that was written, or was refused because the claim was lost."""

    settlement: Settlement[Any]
    target: str
    seconds: float
    """How long the send took; 0 where no call was made."""
    landed: bool


class Observer(Protocol):
    """Told what happens, on the event loop; must be quick and must not raise."""

    def claimed(self, lane: str, count: int) -> None:
        """Work was claimed."""

    def settled(self, lane: str, batch: Sequence[Settled]) -> None:
        """A batch was settled."""

    def rescued(self, lane: str, count: int) -> None:
        """Leases had run out, and their work was taken over."""

    def expired(self, count: int) -> None:
        """Work reached its `expires_at`."""

    def breaker(self, lane: str, target: str, *, is_open: bool) -> None:
        """A breaker opened or closed."""

    def database_lost(self, lane: str, error: str) -> None:
        """A claim or settle found the database gone; it is tried again."""


class Silence:
    """An observer that ignores everything."""

    def claimed(self, lane: str, count: int) -> None:
        """Ignore."""

    def settled(self, lane: str, batch: Sequence[Settled]) -> None:
        """Ignore."""

    def rescued(self, lane: str, count: int) -> None:
        """Ignore."""

    def expired(self, count: int) -> None:
        """Ignore."""

    def breaker(self, lane: str, target: str, *, is_open: bool) -> None:
        """Ignore."""

    def database_lost(self, lane: str, error: str) -> None:
        """Ignore."""
