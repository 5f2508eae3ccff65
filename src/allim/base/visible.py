"""Text of others, before a terminal gets it: what would move its cursor, or its words, is spelt."""

from __future__ import annotations

import re

_UNSEEN = (
    r"\x00-\x1f\x7f-\x9f"  # controls: ESC begins a command, C1's CSI does alone
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the order of words around
    r"\u2028\u2029"  # ends of lines
    r"\ud800-\udfff"  # not text: cannot be written
)
_IN_A_LINE = re.compile(f"[{_UNSEEN}]")
_IN_LINES = re.compile(rf"(?![\n\t])[{_UNSEEN}]")
_IN_JSON = re.compile(rf"(?![\x00-\x1f])[{_UNSEEN}]")


def visible(text: str) -> str:
    """One line, whatever it holds: a control character becomes ``\\x1b``, as Python spells it."""
    return _IN_A_LINE.sub(_spelt, text)


def visible_lines(text: str) -> str:
    """The same of several lines: they and their tabs stay."""
    return _IN_LINES.sub(_spelt, text)


def visible_json(text: str) -> str:
    """The same value as JSON, with what JSON leaves as it is escaped too."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _spelt(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
