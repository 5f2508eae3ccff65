"""Values that PostgreSQL's json cannot hold, or that nobody could read again: where they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from allim.base.errors import FieldProblem

MAX_DEPTH = 32
"""Levels of nesting that `data`, `payload` and `guard` may have."""

_SUSPECTS = (b"\\u0000", b"NaN", b"Infinity")


def suspicious(row: bytes) -> bool:
    """Whether serialised JSON may hold what `unstorable` refuses. Cheap; never misses one."""
    return (
        any(suspect in row for suspect in _SUSPECTS)
        or row.count(b"{") + row.count(b"[") > MAX_DEPTH
    )


def unstorable(request: BaseModel) -> list[FieldProblem]:
    """Every value of a request that cannot be stored, with its place."""
    found: list[FieldProblem] = []
    for name in type(request).model_fields:
        value = getattr(request, name)
        if isinstance(value, list) and value and isinstance(value[0], BaseModel):
            for at, item in enumerate(value):
                found += [
                    FieldProblem(f"/{name}/{at}{problem.place}", problem.code, problem.message)
                    for problem in unstorable(item)
                ]
        else:
            found += _unstorable_values(value, f"/{name}", 0)
    return found


def _unstorable_values(value: Any, place: str, depth: int) -> Iterator[FieldProblem]:
    if isinstance(value, str):
        yield from _unstorable_text(value, place)
    elif isinstance(value, float) and not math.isfinite(value):
        yield FieldProblem(place, "number_range", "is not a finite number")
    elif isinstance(value, dict | list | tuple):
        if depth >= MAX_DEPTH:
            yield FieldProblem(place, "too_deep", f"is nested deeper than {MAX_DEPTH} levels")
            return
        if isinstance(value, dict):
            for key, item in value.items():
                here = f"{place}/{pointer_step(str(key))}"
                yield from _unstorable_text(str(key), here)
                yield from _unstorable_values(item, here, depth + 1)
        else:
            for at, item in enumerate(value):
                yield from _unstorable_values(item, f"{place}/{at}", depth + 1)


def _unstorable_text(text: str, place: str) -> Iterator[FieldProblem]:
    if "\0" in text:
        yield FieldProblem(place, "nul_character", "has a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        yield FieldProblem(place, "lone_surrogate", "has half of a surrogate pair")


def pointer_step(name: str) -> str:
    """One reference token of a JSON pointer (RFC 6901), fit to be shown and sent."""
    return name.replace("~", "~0").replace("/", "~1").encode("utf-8", "backslashreplace").decode()
