"""Templates of JSON (Slack's Block Kit): whatever a value holds, it stays the value it is.

The text is rendered with a mark in place of each value, read as JSON, and only then are the
values put where their marks stand. So a value can neither end its string nor begin another.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2.runtime import Undefined
from pydantic_core import from_json, to_json

from allim.hub.templates.budget import Budget, json_of, text_of
from allim.hub.templates.filters import counted
from allim.hub.templates.sandbox import (
    BadTemplate,
    RenderingFailed,
    Sandbox,
    Source,
    text_sandbox,
)

_BEGIN, _END = "\ue000", "\ue001"
_SYNTAX = ("{{", "{%", "{#")
DEPTH = 20


class _Json(str):
    """A value that is to stand as JSON, not within a text."""

    __slots__ = ("value",)
    value: Any


class _Own(str):
    """A text of the template's own: part of the JSON, not a value within it."""

    __slots__ = ()


class _Values(Budget):
    """The values of one rendering, by their marks."""

    def __init__(self) -> None:
        super().__init__()
        self._nonce = secrets.token_hex(8)
        self.known: dict[str, Any] = {}

    def mark(self, value: Any) -> str:
        mark = f"{_BEGIN}{self._nonce}:{len(self.known)}{_END}"
        self.known[mark] = value
        return mark

    def put_back(self, text: str) -> Any:
        """A text with its values; the value itself where it is a whole one."""
        if _BEGIN not in text:
            return text
        whole = self.known.get(text)
        if isinstance(whole, _Json):
            return whole.value
        parts = text.split(_BEGIN)
        done = parts[0]
        for part in parts[1:]:
            name, end, rest = part.partition(_END)
            value = self.known.get(_BEGIN + name + end)
            done += (_BEGIN + part) if value is None else str(value) + rest
        return done


class BlocksSandbox(Sandbox):
    """Writes marks instead of values."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.filters["tojson"] = counted(_as_json)

    @staticmethod
    def own(text: str) -> str:
        """Part of the JSON."""
        return _Own(text)

    def finish(self, budget: Budget, value: Any) -> Any:
        """The mark of a value; numbers may stand in a text or by themselves."""
        # What names all that is missing renders without marks.
        if isinstance(value, Undefined) or not isinstance(budget, _Values):
            return value
        if value is None or isinstance(value, _Own):
            return value or ""
        if isinstance(value, bool | int | float):
            return to_json(value).decode()
        text = text_of(value)
        budget.write(len(text))
        if isinstance(value, _Json):
            return f'"{budget.mark(value)}"'
        return budget.mark(budget.put_back(text))


def _as_json(value: Any) -> _Json:
    marked = _Json(json_of(value))
    marked.value = value
    return marked


@lru_cache(maxsize=1)
def blocks_sandbox() -> BlocksSandbox:
    """For JSON."""
    return BlocksSandbox()


@dataclass(frozen=True, slots=True)
class Blocks:
    """A compiled template of blocks: a JSON text with expressions, or JSON whose texts have some.

    JSON as it stands (what Block Kit Builder gives) is rendered text by text; else the whole is
    a template, which may have loops.
    """

    source: Source | None
    tree: Any
    variables: frozenset[str]

    @classmethod
    def compile(cls, text: str) -> Blocks:
        """Compile. Raises BadTemplate."""
        try:
            tree = from_json(text)
        except ValueError:
            source = Source.compile(text, blocks_sandbox())
            return cls(source, None, source.variables)
        variables: set[str] = set()
        return cls(None, _compiled(tree, variables, 0), frozenset(variables))

    def render(self, values: Mapping[str, Any]) -> Any:
        """The blocks. Raises MissingVariables and RenderingFailed."""
        if self.source is None:
            return _unwrapped(_rendered(self.tree, values, Budget()))
        known = _Values()
        text = self.source.render(values, known)
        try:
            tree = from_json(text)
        except ValueError as error:
            raise RenderingFailed(f"blocks are not JSON once rendered: {error}") from None
        return _unwrapped(_put_back(tree, known, 0))


def _unwrapped(tree: Any) -> Any:
    """Builder gives the list within an object."""
    if isinstance(tree, dict) and set(tree) == {"blocks"}:
        return tree["blocks"]
    return tree


def _compiled(tree: Any, variables: set[str], depth: int) -> Any:
    if depth > DEPTH:
        raise BadTemplate(f"is nested deeper than {DEPTH} levels")
    if isinstance(tree, dict):
        return {key: _compiled(value, variables, depth + 1) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_compiled(value, variables, depth + 1) for value in tree]
    if isinstance(tree, str) and any(mark in tree for mark in _SYNTAX):
        source = Source.compile(tree, text_sandbox())
        variables |= source.variables
        return source
    return tree


def _rendered(tree: Any, values: Mapping[str, Any], budget: Budget) -> Any:
    if isinstance(tree, dict):
        return {key: _rendered(value, values, budget) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_rendered(value, values, budget) for value in tree]
    return tree.render(values, budget) if isinstance(tree, Source) else tree


def _put_back(tree: Any, known: _Values, depth: int) -> Any:
    if depth > DEPTH:
        raise RenderingFailed(f"blocks are nested deeper than {DEPTH} levels")
    if isinstance(tree, dict):
        return {
            str(known.put_back(key)): _put_back(value, known, depth + 1)
            for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [_put_back(value, known, depth + 1) for value in tree]
    return known.put_back(tree) if isinstance(tree, str) else tree
