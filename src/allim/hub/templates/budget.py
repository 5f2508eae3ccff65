"""What one rendering may spend, and what a value may weigh."""

from __future__ import annotations

import time
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined
from pydantic_core import to_json

STEPS = 20_000
"""Turns of loops, and calls, of one rendering."""
SIZE = 400_000
"""Characters that one rendering writes, counting what it captures."""
MADE = 8_000_000
"""Characters and items of all that its filters and methods make on the way."""
CPU_SECONDS = 0.25
RANGE = 1000
WEIGHT = 500_000
"""Characters and items of one value, however often the same part stands in it."""
INTEGER_BITS = 256
STRIPPED = 100
"""Characters that may be stripped off a text's ends: each of the text's is looked for in them."""
BUDGET = "\0budget"
"""Where a rendering's context holds its budget: no name of a template's own."""


class TooCostly(SecurityError):
    """A template that takes too many steps, too much time or too much room."""


class Budget:
    """What one rendering may still spend."""

    def __init__(self) -> None:
        self._steps = STEPS
        self._size = SIZE
        self._made = MADE
        self._ends_at = time.thread_time() + CPU_SECONDS

    def step(self, weight: int = 0) -> None:
        """One turn of a loop or one call, and as much text as it may write by itself."""
        self._steps -= 1
        if self._steps < 0:
            raise TooCostly(f"takes more than {STEPS} steps")
        self.write(weight)
        if time.thread_time() > self._ends_at:
            raise TooCostly(f"takes more than {CPU_SECONDS:g} s")

    def write(self, size: int) -> None:
        """Text that is written, or captured."""
        self._size -= size
        if self._size < 0:
            raise TooCostly(f"writes more than {SIZE} characters")

    def make(self, size: int) -> None:
        """What a filter or a method has made."""
        self._made -= size
        if self._made < 0:
            raise TooCostly(f"makes more than {MADE} characters and items")


def bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def check_product(left: Any, right: Any) -> None:
    if isinstance(left, str | list | tuple) and isinstance(right, int):
        weigh(left, max(right, 0))
    if bits(left) + bits(right) > INTEGER_BITS:
        raise TooCostly("makes too large a number")


def check_strip(characters: Any) -> None:
    if isinstance(characters, str) and len(characters) > STRIPPED:
        raise TooCostly(f"strips {STRIPPED} characters at most")


def weigh(value: Any, times: int = 1) -> None:
    """Refuse a value that would be too much to write; the same part counts wherever it stands."""
    weight = 0
    waiting = [value]
    while waiting:
        one = waiting.pop()
        weight += times
        if isinstance(one, str):
            weight += len(one) * times
        elif isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, dict):
            waiting += one
            waiting += one.values()
        if weight > WEIGHT:
            raise TooCostly("makes too long a text or list")


def text_of(value: Any) -> str:
    """A value as text; what is no value of JSON has none."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | dict):
        weigh(value)
    elif not isinstance(value, int | float | Undefined):
        raise SecurityError(f"{type(value).__name__} cannot be written; a text or a number can")
    return str(value)


def json_of(value: Any) -> str:
    weigh(value)
    return to_json(value).decode()
