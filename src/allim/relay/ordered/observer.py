"""What the ordered engine tells of its doings."""

from __future__ import annotations

from typing import Any, Protocol

from allim.relay.ordered.box import Settlement


class OrderedObserver(Protocol):
    """Told what happens, on the event loop; must be quick and must not raise."""

    def settled(self, settlement: Settlement[Any], seconds: float) -> None:
        """A turn was written; `seconds` is how long publishing it took."""

    def slots(self, held: int, blocked: int) -> None:
        """How many slots are held, and how many lines in them are blocked."""

    def paused(self, publisher: str, *, is_paused: bool, reason: str = "") -> None:
        """A publisher cannot be had and is left alone for a while, or can be had again."""

    def lease_lost(self, relay: str) -> None:
        """An incarnation lost its lease, and dropped all it held."""

    def database_lost(self, error: str) -> None:
        """The database is gone; it is tried again."""


class OrderedSilence:
    """An observer that ignores everything."""

    def settled(self, settlement: Settlement[Any], seconds: float) -> None:
        """Ignore."""

    def slots(self, held: int, blocked: int) -> None:
        """Ignore."""

    def paused(self, publisher: str, *, is_paused: bool, reason: str = "") -> None:
        """Ignore."""

    def lease_lost(self, relay: str) -> None:
        """Ignore."""

    def database_lost(self, error: str) -> None:
        """Ignore."""
