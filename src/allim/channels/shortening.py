"""Texts that are longer than a provider takes: cut, with an ellipsis that says so.

Notifications are cut, since a part of a message is better than none. What a caller writes in a
provider's own form (`payload`) is refused when it is posted, since nobody else can say what of
it may go.
"""

from __future__ import annotations

from collections.abc import Callable

ELLIPSIS = "…"


def utf16_length(text: str) -> int:
    """How long a text is for who counts UTF-16 units, as chat services written for browsers do."""
    return len(text) + sum(character > "\uffff" for character in text)


def shortened(text: str, limit: int) -> str:
    """The text, cut to `limit` UTF-16 units where it is longer."""
    if 2 * len(text) <= limit or utf16_length(text) <= limit:
        return text
    kept = text.encode("utf-16-le", "surrogatepass")[: 2 * (limit - 1)]
    return kept.decode("utf-16-le", "ignore") + ELLIPSIS


def shortened_to_fit(text: str, limit: int, written: Callable[[str], bytes]) -> bytes:
    """What `written` makes of a text, cut until that has at most `limit` bytes.

    What cannot fit however short the text is comes back too long.
    """
    whole = written(text)
    if len(whole) <= limit:
        return whole
    fits, too_long = 0, min(len(text), limit)
    best = written(ELLIPSIS)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        tried = written(text[:middle] + ELLIPSIS)
        if len(tried) <= limit:
            fits, best = middle, tried
        else:
            too_long = middle
    return best
