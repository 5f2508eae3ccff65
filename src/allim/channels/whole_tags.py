"""HTML of which a parser can make something in linear time."""

from __future__ import annotations

import re

_DECLARATION = re.compile(r"<![^<>]*>")
_LOOSE = re.compile(r"<(?!/?[A-Za-z?][^<>]*>)")


def whole_tags(html: str) -> str:
    """The same without comments and declarations; what begins no whole tag is a text.

    `html.parser` looks for the end of each tag that has none through all that follows: a hundred
    kilobytes of `<a ` take it minutes.
    """
    kept: list[str] = []
    at = 0
    while (begin := html.find("<!--", at)) >= 0:
        kept.append(html[at:begin])
        end = html.find("-->", begin)
        at = len(html) if end < 0 else end + 3
    kept.append(html[at:])
    return _LOOSE.sub("&lt;", _DECLARATION.sub("", "".join(kept)))
