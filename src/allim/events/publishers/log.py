"""LOG: one line of JSON per event on stdout, for trying things out and for log shippers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from pydantic_core import to_json

from allim.events.publishers.headers import headers_of
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.publisher import DELIVERED, NOT_TRIED, MaySend
from allim.relay.outcomes import Outcome

NAME = "log"


def _print(lines: str) -> None:
    sys.stdout.write(lines + "\n")
    sys.stdout.flush()


class LogPublisher:
    """Writes events to stdout, a batch in one write."""

    name = NAME

    def __init__(self, print_line: Callable[[str], None] = _print) -> None:
        self._print_line = print_line

    def begin(self, relay: str) -> None:
        """It has no names."""

    async def fence(self, relay: str) -> None:
        """It has no fence."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        """Write a line for each; a stdout that is closed is our own fault and loses nothing."""
        if not may_send():
            return [NOT_TRIED] * len(batch)
        try:
            self._print_line("\n".join([_line(message) for message in batch]))
        except (OSError, ValueError) as error:
            return [Outcome.fault("stdout_failed", type(error).__name__)] * len(batch)
        return [DELIVERED] * len(batch)

    async def purge(self) -> None:
        """Nothing waits here."""

    async def close(self) -> None:
        """Nothing is held."""

    async def diagnose(self) -> str | None:
        """Stdout is always there."""
        return None


def _line(message: OutboxMessage) -> str:
    line = {
        "event": message.id,
        "topic": message.topic,
        "key": message.key,
        "headers": headers_of(message),
        "payload": message.payload.decode(errors="backslashreplace"),
    }
    return to_json(line).decode()


class NullPublisher:
    """Takes everything and does nothing with it: what the engine itself costs."""

    name = "null"

    def begin(self, relay: str) -> None:
        """It has no names."""

    async def fence(self, relay: str) -> None:
        """It has no fence."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        """All delivered, to nobody."""
        return [DELIVERED] * len(batch) if may_send() else [NOT_TRIED] * len(batch)

    async def purge(self) -> None:
        """Nothing waits here."""

    async def close(self) -> None:
        """Nothing is held."""

    async def diagnose(self) -> str | None:
        """Nothing can be wrong."""
        return None
