"""Which slot a key's messages go through."""

from __future__ import annotations

from hashlib import sha256

from allim.relay.ordered.limits import SLOTS as SLOTS


def slot_of(key: str) -> int:
    """The slot of a key, 0 to 63; `outbox_slot(key)` says the same in SQL (migration 0005)."""
    return sha256(key.encode()).digest()[0] & (SLOTS - 1)
