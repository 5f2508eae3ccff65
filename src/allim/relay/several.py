"""Several observers in the place of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from allim.relay.observer import Observer, Settled
from allim.relay.ordered import box as ordered
from allim.relay.ordered.observer import OrderedObserver


class SeveralObservers:
    """Implements relay.observer.Observer: tells each of them, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def claimed(self, lane: str, count: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.claimed(lane, count)

    def settled(self, lane: str, batch: Sequence[Settled]) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.settled(lane, batch)

    def rescued(self, lane: str, count: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.rescued(lane, count)

    def expired(self, count: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.expired(count)

    def breaker(self, lane: str, target: str, *, is_open: bool) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.breaker(lane, target, is_open=is_open)

    def database_lost(self, lane: str, error: str) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.database_lost(lane, error)


class SeveralOrderedObservers:
    """Implements relay.ordered.observer.OrderedObserver: tells each of them, in their order."""

    def __init__(self, *observers: OrderedObserver) -> None:
        self._observers = observers

    def settled(self, settlement: ordered.Settlement[Any], seconds: float) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.settled(settlement, seconds)

    def slots(self, held: int, blocked: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.slots(held, blocked)

    def paused(self, publisher: str, *, is_paused: bool, reason: str = "") -> None:
        """Tell each."""
        for observer in self._observers:
            observer.paused(publisher, is_paused=is_paused, reason=reason)

    def lease_lost(self, relay: str) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.lease_lost(relay)

    def database_lost(self, error: str) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.database_lost(error)
