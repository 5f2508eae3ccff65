"""What came in, in our words, whoever brought it; and a shorter telling for narrow channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from allim.base.errors import FieldProblem
from allim.ingest.routing import Source

TITLE_LIMIT = 250
MESSAGE_LIMIT = 20_000
BRIEF_TITLE_BYTES = 40
BRIEF_MESSAGE_BYTES = 900
"""In cp949, as texts are counted: a long text message has room for twice as much."""

_STEPS = ("deliveries", "then", "fallback")


@dataclass(frozen=True, slots=True)
class Report:
    """What is told; `data` is for templates and programs."""

    source: Source
    type: str
    title: str
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)
    html: str | None = None
    """The message as HTML, for e-mail."""

    def shortened_at(
        self, deliveries: Sequence[Mapping[str, Any]], problems: Sequence[FieldProblem]
    ) -> list[dict[str, Any]]:
        """The same deliveries, with a brief telling where a channel cannot carry the whole one.

        An alert cut short is worth more than one that is refused. What was wrong with a
        delivery besides stays so.
        """
        again = [_copied(delivery) for delivery in deliveries]
        for problem in problems:
            node: Any = {"deliveries": again}
            steps = problem.place.split("/")[1:]
            while len(steps) >= 2 and steps[0] in _STEPS and steps[1].isdigit():
                node = node[steps[0]][int(steps[1])]
                steps = steps[2:]
            if "channel" in node:
                node.setdefault("title", plain(self.title, BRIEF_TITLE_BYTES))
                node.setdefault("message", self._brief())
        return again

    def _brief(self) -> str:
        told = self.message
        if self.title and not told.startswith(self.title):
            told = f"{self.title}\n{told}"
        return plain(told, BRIEF_MESSAGE_BYTES)


def cut(text: str, limit: int) -> str:
    """A text of at most `limit` characters; what was longer ends in dots."""
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."


def plain(text: str, size: int) -> str:
    """A text of characters that a Korean text message can hold, and at most `size` bytes of it."""
    # cp949 also has syllables beyond the telephone's set, told by a byte below 0xA1.
    kept = "".join(c if _sendable(c) else "?" for c in text)
    encoded = kept.encode("cp949")
    if len(encoded) <= size:
        return kept
    return encoded[: size - 3].decode("cp949", "ignore").rstrip() + "..."


def _sendable(character: str) -> bool:
    try:
        encoded = character.encode("cp949")
    except UnicodeEncodeError:
        return False
    if len(encoded) == 1:
        return character >= " " or character == "\n"
    return min(encoded) >= 0xA1


def _copied(delivery: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [_copied(each) for each in value] if name in _STEPS else value
        for name, value in delivery.items()
    }
