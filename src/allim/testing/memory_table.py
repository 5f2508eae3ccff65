"""The table behind a box in memory: unique row keys, what is due, and what follows what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from allim.hub.settling import DELIVERED_RECEIPT
from allim.hub.status import DeliveryStatus, Step
from allim.relay.work import Work
from allim.testing.memory_delivery import WAITING, MemoryDelivery, is_past, row_key_of


class MemoryTable:
    """Deliveries by their id, in `rows`. It knows neither the time nor who calls."""

    def __init__(self) -> None:
        self.rows: dict[int, MemoryDelivery] = {}
        self._canceled: set[UUID] = set()
        self._row_keys: set[tuple[str, str, int | None]] = set()
        self._next_id = 1

    def draw_id(self) -> int:
        """An id that no row has had."""
        drawn, self._next_id = self._next_id, self._next_id + 1
        return drawn

    def store(self, delivery: MemoryDelivery) -> bool:
        """Store a new delivery; False where its row key is taken."""
        if (key := row_key_of(delivery)) is not None:
            if key in self._row_keys:
                return False
            self._row_keys.add(key)
        self.rows[delivery.id] = delivery
        return True

    def cancel(self, notification: UUID) -> int:
        """Cancel what waits of a notification, and its children yet to come; how many waited."""
        self._canceled.add(notification)
        waiting = [
            delivery
            for delivery in self.rows.values()
            if delivery.message.notification_id == notification and delivery.status in WAITING
        ]
        for delivery in waiting:
            delivery.status, delivery.next_retry_at = DeliveryStatus.CANCELED, None
        return len(waiting)

    def due(self, lane: str, now: float) -> tuple[list[MemoryDelivery], list[MemoryDelivery]]:
        """What a lane may claim: what was timed, longest due first, and new work by priority."""
        timed: list[tuple[float, int, MemoryDelivery]] = []
        fresh: list[tuple[int, int, MemoryDelivery]] = []
        for delivery in self.rows.values():
            if delivery.channel != lane or delivery.status not in WAITING:
                continue
            if is_past(delivery, now):
                continue
            if delivery.next_retry_at is None:
                fresh.append((delivery.priority, delivery.id, delivery))
            elif delivery.next_retry_at <= now:
                timed.append((delivery.next_retry_at, delivery.id, delivery))
        return [entry[-1] for entry in sorted(timed)], [entry[-1] for entry in sorted(fresh)]

    def held(self, work: Work[Any]) -> MemoryDelivery | None:
        """The delivery of a claim, as long as that holds."""
        delivery = self.rows.get(work.id)
        if delivery is None or delivery.claim_token != work.claim_token:
            return None
        return delivery

    def apply_receipt(self, delivery: MemoryDelivery) -> list[MemoryDelivery]:
        """End an accepted delivery as its receipt says; the children that brings."""
        if delivery.receipt_status == DELIVERED_RECEIPT:
            delivery.status = DeliveryStatus.SUCCESS
        else:
            delivery.status, delivery.error_code = DeliveryStatus.DEAD, "receipt_failed"
        return self.follow(delivery)

    def follow(self, delivery: MemoryDelivery) -> list[MemoryDelivery]:
        """Bring into the world what follows a success or a death."""
        if delivery.status is DeliveryStatus.SUCCESS:
            thens = [
                delivery.child(self.draw_id(), entry, Step.THEN, entry.get("fallback", ()))
                for entry in delivery.then_steps
            ]
            return [child for child in thens if self._bring_up(child)]
        if delivery.status is not DeliveryStatus.DEAD or not delivery.fallback_steps:
            return []
        entry, *rest = delivery.fallback_steps
        chain = [*entry.get("fallback", ()), *rest]
        child = delivery.child(self.draw_id(), entry, Step.FALLBACK, chain)
        if not self._bring_up(child):
            return []
        delivery.superseded_by = child.id
        return [child]

    def saved(self, ids: Iterable[int]) -> dict[int, MemoryDelivery]:
        """These rows as they are now, for `restore`."""
        known = (self.rows.get(delivery_id) for delivery_id in ids)
        return {delivery.id: delivery.copied() for delivery in known if delivery is not None}

    def restore(
        self, saved: Mapping[int, MemoryDelivery], born: Sequence[MemoryDelivery] = ()
    ) -> None:
        """Take back what was done to rows since they were saved, and those born meanwhile."""
        self.rows.update(saved)
        for child in born:
            del self.rows[child.id]
            self._row_keys.discard(row_key_of(child) or ("", "", None))

    def _bring_up(self, child: MemoryDelivery) -> bool:
        """Store a child; False where its row key is taken."""
        if child.message.notification_id in self._canceled:
            child.status = DeliveryStatus.CANCELED
        return self.store(child)
