"""What the ordered engine knows of a message."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar


class Line(NamedTuple):
    """Messages that must leave one after the other: those of one key of one topic."""

    slot: int
    topic: str
    key: str


class Ordered(Protocol):
    """A message with its place: `seq` orders the messages of a slot."""

    @property
    def slot(self) -> int:
        """Where it is read from."""

    @property
    def seq(self) -> int:
        """Its place in the slot."""

    @property
    def line(self) -> Line | None:
        """What it must not overtake; None where it may overtake anything."""

    @property
    def topic(self) -> str:
        """Where it goes."""

    @property
    def retry_count(self) -> int:
        """How many tries the other side has failed."""

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""


Message = TypeVar("Message", bound=Ordered)
