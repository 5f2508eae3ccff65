"""What a message says that carries others.

Services cut what is too long, at its end; what was cut off would be told to nobody. So the
message's own words make room for the lines of the others, and a message whose payload leaves no
room for any goes by itself.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from allim.channels.channel import Message
from allim.channels.json_bytes import json_bytes
from allim.channels.shortening import shortened, utf16_length

LINES = 20
LINE = 100
BLOCKS = 50
"""As many as Slack takes in one message."""
SECTION = 3000
"""Characters that Slack takes in one section, counting what it has escaped."""
CARD_BYTES = 16 * 1024
"""Of Teams' 28 KiB, what a card of the caller's own may have beside our lines."""
PUSHED_BYTES = 1400
"""Of the 4 KB of a push, what title and data may have."""
TITLE = 256
"""As much of a title as chat services are sent (see their channels)."""

_MARKDOWN = re.compile(r"([_*\[\]()~`>#+\-=|{}.!\\<])")
_OLD_MARKDOWN = re.compile(r"([_*`\[])")


@dataclass(frozen=True, slots=True)
class Carried:
    """One that goes with another."""

    id: int
    title: str | None
    message: str | None
    type: str

    def line(self, length: int = LINE) -> str:
        """It in one line."""
        parts = [part[: 2 * length] for part in (self.title, self.message) if part]
        words = " ".join(" ".join(parts).split()) or self.type
        return words if len(words) <= length else words[: length - 1] + "…"


@dataclass(frozen=True, slots=True)
class _Room:
    """What a channel has room for: `limit` is of title, words and lines together."""

    lines: int = LINES
    line: int = LINE
    limit: int | None = None
    length: Callable[[str], int] = utf16_length


def _markdown_length(text: str) -> int:
    """As long as Discord counts it at most, with every mark escaped."""
    return utf16_length(text) + len(_MARKDOWN.findall(text))


def _utf8_length(text: str) -> int:
    return len(json_bytes(text))


def _escaped_length(text: str) -> int:
    return len(_escaped(text))


_ROOMS: Mapping[str, _Room] = {
    "SLACK": _Room(limit=38_000, length=_escaped_length),
    "DISCORD": _Room(lines=7, line=60, limit=1950, length=_markdown_length),
    "TELEGRAM": _Room(lines=10, limit=4050),
    # A line costs a card about 100 bytes more.
    "TEAMS": _Room(limit=16 * 1024, length=_utf8_length),
    "WEBPUSH": _Room(lines=5, line=60, limit=2300, length=_utf8_length),
}
_ANYWHERE = _Room()


def can_carry(message: Message) -> bool:
    """Whether there is room for others."""
    payload, room = message.payload, _ROOMS.get(message.channel, _ANYWHERE)
    match message.channel:
        case "SLACK":
            blocks, text = payload.get("blocks"), payload.get("text")
            if isinstance(text, str) and len(text) > (room.limit or 0) // 2:
                return False
            return not isinstance(blocks, list) or len(blocks) < BLOCKS
        case "DISCORD" | "TELEGRAM":
            own = payload.get("content" if message.channel == "DISCORD" else "text")
            most = (room.limit or 0) // 2
            return not isinstance(own, str) or room.length(own) <= most
        case "TEAMS":
            card = payload.get("card")
            if not isinstance(card, Mapping):
                return True
            return isinstance(card.get("body"), list) and len(json_bytes(card)) <= CARD_BYTES
        case "WEBPUSH":
            fixed = [message.title, message.type, dict(message.data)]
            return "body" not in payload and len(json_bytes(fixed)) <= PUSHED_BYTES
    return True


def carrying(message: Message, others: Sequence[Carried]) -> Message:
    """The message with a line for each of the others; beyond some their number only."""
    if not others:
        return message
    room = _ROOMS.get(message.channel, _ANYWHERE)
    lines = [f"• {each.line(room.line)}" for each in others[: room.lines]]
    if len(others) > room.lines:
        lines.append(f"… {len(others) - room.lines} more")
    lines = [f"+{len(others)}:", *lines]
    plain = "\n".join(lines)
    own = _cut(message, room, plain)
    if message.channel == "APPRISE" and message.payload.get("format") == "html":
        plain = "<br>".join(map(html.escape, lines))
    payload = {**message.payload, **_in_payload(message, lines)}
    if own is None and message.channel == "EMAIL" and payload.get("html"):
        # A mail's text is made of its HTML where it has none of its own.
        return replace(message, payload=payload)
    return replace(message, message=f"{own}\n\n{plain}" if own else plain, payload=payload)


def _in_payload(message: Message, lines: Sequence[str]) -> Mapping[str, Any]:
    """The parts of a payload that a channel shows instead of the message, or beside it."""
    payload, plain = message.payload, "\n".join(lines)
    match message.channel:
        case "SLACK":
            return _in_slack(payload, plain)
        case "DISCORD" if payload.get("content") or payload.get("embeds"):
            own, ours = payload.get("content"), _MARKDOWN.sub(r"\\\1", plain)
            return {"content": f"{own}\n\n{ours}" if own else ours}
        case "TELEGRAM" if isinstance(text := payload.get("text"), str) and text:
            return {"text": f"{text}\n\n{_for_telegram(plain, payload.get('parse_mode'))}"}
        case "TEAMS" if isinstance(card := payload.get("card"), Mapping):
            blocks = [{"type": "RichTextBlock", "inlines": [run]} for run in map(_run, lines)]
            return {"card": {**card, "body": [*card["body"], *blocks]}}
        case "EMAIL" if isinstance(page := payload.get("html"), str) and page:
            return {"html": _in_page(page, lines)}
    return {}


def _in_slack(payload: Mapping[str, Any], plain: str) -> Mapping[str, Any]:
    shown: dict[str, Any] = {}
    if isinstance(text := payload.get("text"), str) and text:
        shown["text"] = f"{text}\n\n{_escaped(plain)}"
    if isinstance(blocks := payload.get("blocks"), list):
        text = _escaped(plain)
        while len(text) > SECTION:
            # What is escaped is up to five times as long: lines are shortened alike.
            longest = max(map(len, plain.splitlines())) * SECTION // len(text) - 1
            plain = "\n".join(shortened(line, longest) for line in plain.splitlines())
            text = _escaped(plain)
        section = {"type": "section", "text": {"type": "mrkdwn", "text": text}}
        shown["blocks"] = [*blocks, section]
    return shown


def _in_page(page: str, lines: Sequence[str]) -> str:
    head, *others = lines
    items = "".join(f"<li>{html.escape(each.removeprefix('• '))}</li>" for each in others)
    before, body_end, after = page.rpartition("</body>")
    if not body_end:
        before, after = page, ""
    return f"{before}<hr><p>{head}</p><ul>{items}</ul>{body_end}{after}"


def _for_telegram(plain: str, mode: object) -> str:
    match mode:
        case "HTML":
            return html.escape(plain, quote=False)
        case "MarkdownV2":
            return _MARKDOWN.sub(r"\\\1", plain)
        case "Markdown":
            return _OLD_MARKDOWN.sub(r"\\\1", plain)
    return plain


def _run(line: str) -> Mapping[str, Any]:
    return {"type": "TextRun", "text": line}


def _cut(message: Message, room: _Room, plain: str) -> str | None:
    """The message's own words, as many of them as there is room for beside the lines."""
    own = message.message
    if own is None or room.limit is None:
        return own
    title = shortened(message.title or "", TITLE)
    left = room.limit - room.length(title) - room.length(plain)
    limit, cut = left, own
    while limit > 1 and room.length(cut := shortened(own, limit)) > left:
        limit = min(limit - 1, limit * left // room.length(cut))
    return cut if limit > 1 else None


def _escaped(text: str) -> str:
    """The three characters that Slack's text gives a meaning to."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
