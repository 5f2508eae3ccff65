"""A message of the outbox, as the relay reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from allim.relay.ordered.message import Line

OVERHEAD_BYTES = 1024
"""About what a message takes besides its payload."""


@dataclass(slots=True, eq=False)
class OutboxMessage:
    """A message of the outbox. Implements relay.ordered.message.Ordered.

    `created_at` is seconds since 1970; `encryption_key` names the key that the payload is
    encrypted with, None where it is not.
    """

    slot: int
    seq: int
    line: Line | None
    id: str
    topic: str
    key: str | None
    payload: bytes
    headers: Mapping[str, str]
    content_type: str | None
    encryption_key: str | None
    created_at: float
    retry_count: int
    version: int

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        return len(self.payload) + OVERHEAD_BYTES
