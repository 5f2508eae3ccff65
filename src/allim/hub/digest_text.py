"""What a message says that carries others."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from allim.channels.channel import Message

LINES = 20
LINE = 100
BLOCKS = 50
"""As many as Slack takes in one message."""


@dataclass(frozen=True, slots=True)
class Carried:
    """One that goes with another."""

    id: int
    title: str | None
    message: str | None
    type: str

    @property
    def line(self) -> str:
        """It in one line."""
        parts = [part for part in (self.title, self.message) if part]
        words = " ".join(" ".join(parts).split()) or self.type
        return words if len(words) <= LINE else words[: LINE - 1] + "…"


def can_carry(message: Message) -> bool:
    """Whether there is room for others."""
    blocks = message.payload.get("blocks")
    return not isinstance(blocks, list) or len(blocks) < BLOCKS


def carrying(message: Message, others: Sequence[Carried]) -> Message:
    """The message with a line for each of the others; beyond LINES their number only."""
    if not others:
        return message
    lines = [f"• {each.line}" for each in others[:LINES]]
    if len(others) > LINES:
        lines.append(f"… {len(others) - LINES} more")
    head = f"+{len(others)}:"
    plain = "\n".join([head, *lines])
    payload: dict[str, Any] = dict(message.payload)
    if isinstance(text := payload.get("text"), str) and text:
        payload["text"] = f"{text}\n\n{_escaped(plain)}"
    if isinstance(blocks := payload.get("blocks"), list):
        section = {"type": "section", "text": {"type": "mrkdwn", "text": _escaped(plain)}}
        payload["blocks"] = [*blocks, section]
    if isinstance(page := payload.get("html"), str) and page:
        items = "".join(f"<li>{html.escape(each.removeprefix('• '))}</li>" for each in lines)
        before, body_end, after = page.rpartition("</body>")
        before = before if body_end else page
        after = after if body_end else ""
        payload["html"] = f"{before}<hr><p>{head}</p><ul>{items}</ul>{body_end}{after}"
    words = f"{message.message}\n\n{plain}" if message.message else plain
    return replace(message, message=words, payload=payload)


def _escaped(text: str) -> str:
    """The three characters that Slack's text gives a meaning to."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
