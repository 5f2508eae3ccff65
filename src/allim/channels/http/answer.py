"""An answer as it comes in: llhttp takes it apart, this puts together what is wanted of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

HEAD_LIMIT = 64 * 1024
"""Bytes of an answer's head; more is no answer. Nor is more between the parts of its body, where
llhttp would keep a trailer however long it is."""
BODY_HAS_END = frozenset({b"content-length", b"transfer-encoding"})


class NotHttp(Exception):
    """What came is no answer, or not one that was asked for."""


class Headers(Mapping[str, str]):
    """An answer's headers, found by a name in any case; of several of one name the first."""

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._fields = fields

    def find(self, name: str) -> str | None:
        """What `get` does, without an exception where there is none."""
        wanted = name.lower().encode()
        for field, value in self._fields:
            if field.lower() == wanted:
                return value.decode("utf-8", "replace")
        return None

    def __getitem__(self, name: str) -> str:
        value = self.find(name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter({field.lower().decode("latin-1"): None for field, _ in self._fields})

    def __len__(self) -> int:
        return len({field.lower() for field, _ in self._fields})


class Reply(NamedTuple):
    """What came of an answer.

    `complete` is False where it broke off, or time ran out, within the body. A body of which no
    more was wanted is complete, too, and `cut`.
    """

    status: int
    headers: Headers
    content: bytes
    complete: bool
    cut: bool


class AnswerReader:
    """Reads the answers of one connection, one after the other."""

    has_head: bool
    """The status and the headers are there."""
    is_whole: bool
    """All of it is there."""
    may_go_on: bool
    """It is whole, and the connection may be used for the next request."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        # What servers get wrong without anything being read two ways.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self.expect(0)

    def expect(self, limit: int, *, is_file: bool = False) -> None:
        """Begin with the answer to one request; of its body at most `limit` bytes are wanted.

        Of a file that says that it is that long, and of an answer that is not the file (status 300
        and up), none are.
        """
        self.has_head = self.is_whole = self.may_go_on = False
        self._status = 0
        self._beside_body = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._passed_over = False
        self._limit = limit
        self._is_file = is_file

    @property
    def has_enough(self) -> bool:
        """No more of it is wanted."""
        return self.has_head and self._size >= self._limit

    def feed(self, data: bytes) -> None:
        """Read on. Raises NotHttp; what was read before is still there."""
        self._beside_body += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.may_go_on = False
            if not self.is_whole:
                raise NotHttp from None
        if self._beside_body > HEAD_LIMIT and not self.is_whole:
            raise NotHttp

    def end(self) -> None:
        """The connection ended in good order, which is how an answer may say that it is whole."""
        if BODY_HAS_END.isdisjoint(name.lower() for name, _ in self._fields):
            self.is_whole = self.has_head

    def reply(self, *, complete: bool) -> Reply:
        """What there is of the answer; only once it has its head."""
        content = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if len(content) > self._limit:
            content = content[: self._limit]
        return Reply(
            self._status,
            Headers(self._fields),
            content,
            complete,
            cut=complete and (self._passed_over or not self.is_whole),
        )

    # The parser's calls

    def on_message_begin(self) -> None:
        """Another answer begins; where one was whole already, nobody asked for it."""
        self.may_go_on = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or, behind the body, a trailer, which is not wanted."""
        if not self.has_head:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there; status 1xx only announces the answer."""
        status = self._parser.get_status_code()
        if self.has_head or 100 <= status < 200:
            return
        if status < 100 or self._beside_body > HEAD_LIMIT < _size(self._fields):
            raise NotHttp
        self.has_head = True
        self._status = status
        if self._is_file and (status >= 300 or _declared_length(self._fields) >= self._limit):
            self._limit = 0

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        self._beside_body = 0
        if self.is_whole:
            return
        if self._size < self._limit:
            self._parts.append(part)
            self._size += len(part)
        else:
            self._passed_over = True

    def on_message_complete(self) -> None:
        """The end of the answer, or of an announcement."""
        if self.has_head:
            self.may_go_on = (
                not self.is_whole
                and self._parser.should_keep_alive()
                # It has none, whatever is said; some servers send one all the same.
                and not (self._status == 204 and _declares_body(self._fields))
            )
            self.is_whole = True
        else:
            self._fields = []


def _declared_length(fields: list[tuple[bytes, bytes]]) -> int:
    # llhttp has seen to it that it is a number.
    return int(Headers(fields).get("Content-Length", "0"))


def _declares_body(fields: list[tuple[bytes, bytes]]) -> bool:
    return _declared_length(fields) > 0 or "Transfer-Encoding" in Headers(fields)


def _size(fields: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in fields)
