"""Reading a JSON array item by item, while it comes in."""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any

ITEM_LIMIT = 1024 * 1024
"""The most characters that one item may have."""

_BLANK = re.compile(r"[ \t\n\r]*")


def refuse_constant(name: str) -> Any:
    """A `parse_constant` for JSON that means it: NaN and Infinity are not."""
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=refuse_constant)


class _State(Enum):
    """Where in the array the reader is."""

    BEFORE = "before the bracket"
    FIRST = "before the first item or the end"
    ITEM = "before an item"
    AFTER = "after the end"


class NotAnArray(ValueError):
    """What came in is not one whole JSON array; the text says how, without quoting it."""


class JsonArray:
    """Takes text in pieces of any size; gives the items that are whole.

    `feed` every piece, then call `end`, which raises unless the array was closed: a listing
    that was cut off is never taken for a short one. Only the item that is not whole yet is
    held. Raises NotAnArray.
    """

    def __init__(self, *, item_limit: int = ITEM_LIMIT) -> None:
        self._limit = item_limit
        self._text = ""
        self._worth = 0
        """How much text there must be before it is tried again: so an item that comes in tiny
        pieces is not scanned once for each of them."""
        self._state = _State.BEFORE

    def feed(self, text: str) -> list[Any]:
        """The items that are whole with this piece."""
        self._text += text
        if len(self._text) < self._worth:
            return []
        return self._take(at_end=False)

    def end(self) -> list[Any]:
        """The last items. Raises NotAnArray unless the array was closed."""
        items = self._take(at_end=True)
        if self._state is _State.BEFORE:
            raise NotAnArray("it is empty")
        if self._state is not _State.AFTER:
            raise NotAnArray("it ends in the middle")
        return items

    def _take(self, *, at_end: bool) -> list[Any]:
        text, items = self._text, []
        place = self._begin(text)
        while self._state in (_State.FIRST, _State.ITEM):
            place = _skip(text, place)
            if self._state is _State.FIRST and text[place : place + 1] == "]":
                self._state, place = _State.AFTER, place + 1
                break
            item, after = _whole_item(text, place)
            if after is None:
                break
            items.append(item)
            self._state = _State.AFTER if text[after] == "]" else _State.ITEM
            place = after + 1
        if self._state is _State.AFTER:
            place = _skip(text, place)
            if place < len(text):
                raise NotAnArray("there is more after its end")
        rest = self._text = text[place:]
        self._worth = len(rest) + len(rest) // 4
        if len(rest) > self._limit:
            raise NotAnArray("it is malformed, or one item is too long")
        if at_end and rest:
            raise NotAnArray("it is malformed or ends in the middle")
        return items

    def _begin(self, text: str) -> int:
        """See to the bracket that the array begins with."""
        if self._state is not _State.BEFORE:
            return 0
        place = _skip(text, 0)
        match text[place : place + 1]:
            case "":
                return place
            case "[":
                self._state = _State.FIRST
                return place + 1
            case "<":
                raise NotAnArray("HTML instead of JSON")
            case "{":
                raise NotAnArray("an object where an array is expected")
            case _:
                raise NotAnArray("not a JSON array")


def _skip(text: str, place: int) -> int:
    found = _BLANK.match(text, place)
    return found.end() if found else place


def _whole_item(text: str, place: int) -> tuple[Any, int | None]:
    """An item and where the comma or bracket after it is; None where it is not whole yet.

    Without what follows, the number in ``[12`` could be the beginning of 1234.
    """
    try:
        item, after = _DECODER.raw_decode(text, place)
    except RecursionError:
        raise NotAnArray("it is nested too deeply") from None
    except ValueError:
        # Not whole, or never to be: which of them is known when more has come, or no more.
        return None, None
    after = _skip(text, after)
    if after == len(text):
        return None, None
    if text[after] not in ",]":
        if isinstance(item, (int, float)):
            # "1." and "1e" are the beginnings of numbers.
            return None, None
        raise NotAnArray("it is malformed")
    return item, after
