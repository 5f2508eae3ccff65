"""The words of HTML, for whoever shows no HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_DECLARATION = re.compile(r"<![^<>]*>")
_LOOSE = re.compile(r"<(?!/?[A-Za-z?][^<>]*>)")


def text_of_html(html: str) -> str:
    """The words of HTML, a line for each block, and where its links lead; in linear time."""
    reader = _Reader()
    reader.feed(_whole_tags(html))
    reader.close()
    return reader.text()


class _Reader(HTMLParser):
    """Collects the words."""

    SILENT = frozenset({"head", "script", "style", "title"})
    BLOCKS = frozenset({"br", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "p", "table", "tr"})

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[str] = []
        self._silent = 0
        self._link = ""
        self._link_begin = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.SILENT:
            self._silent += 1
        if tag == "a":
            # One within another ends it (HTML, 13.2.6.4.7): links do not nest.
            self._end_link()
            self._link, self._link_begin = dict(attrs).get("href") or "", len(self._parts)
        if tag in self.BLOCKS:
            self._parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.SILENT:
            self._silent = max(self._silent - 1, 0)
        if tag == "a":
            self._end_link()

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._parts.append(re.sub(r"\s+", " ", data))

    def text(self) -> str:
        lines = (line.strip() for line in "".join(self._parts).split("\n"))
        return "\n".join(line for line in lines if line)

    def _end_link(self) -> None:
        link, self._link = self._link, ""
        words = self._parts[self._link_begin :]
        if link.startswith(("http://", "https://")) and link not in "".join(words):
            self._parts.append(f" ({link})")


def _whole_tags(html: str) -> str:
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
