"""Named SQL statements, kept in `.sql` files beside the code that runs them.

A file is a run of blocks, each begun by ``-- name: some_name``; comments that follow give
the reason for its shape and the index it needs. Parameters are psycopg's ``%(name)s``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import LiteralString

_BLOCK = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)


class Statements(Mapping[str, LiteralString]):
    """The statements of one file, by name."""

    def __init__(self, text: str, origin: str) -> None:
        self._statements: dict[str, LiteralString] = {}
        self._origin = origin
        parts = _BLOCK.split(text)
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            if name in self._statements:
                raise ValueError(f"{origin}: statement {name!r} stands twice")
            # The text comes from our own package, never from a caller.
            self._statements[name] = _without_comments(body)

    @classmethod
    def load(cls, package: str, file: str = "queries.sql") -> Statements:
        """Read the file `file` of `package`."""
        text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
        return cls(text, f"{package}/{file}")

    def __getitem__(self, name: str) -> LiteralString:
        try:
            return self._statements[name]
        except KeyError:
            raise KeyError(f"{self._origin} has no statement {name!r}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def _without_comments(body: str) -> str:
    # Short, since psycopg reads a text of over 4096 characters anew each time it is run.
    lines = [line.strip() for line in body.splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("--")).removesuffix(";")
