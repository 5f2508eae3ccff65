"""The filters of templates: each call is counted, and so is what it makes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from markupsafe import Markup, escape

from allim.hub.templates.budget import (
    BUDGET,
    INTEGER_BITS,
    Budget,
    TooCostly,
    bits,
    check_strip,
    json_of,
    text_of,
    weigh,
)

PLACES = 30
"""Decimal places that a number is rounded to, before or behind the point."""
_OF_JINJA = frozenset({
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "reverse", "safe", "select", "selectattr", "sort", "title", "truncate",
    "unique", "upper", "urlencode", "wordcount",
})  # fmt: skip

Filter = Callable[..., Any]


def filters() -> dict[str, Filter]:
    """All that a template may use, by name; besides, those that a rewritten tree calls."""
    known = {name: counted(FILTERS[name]) for name in _OF_JINJA}
    ours = (_join, _replace, _round, _sum, _trim)
    known |= {each.__name__.removeprefix("_"): counted(each) for each in ours}
    known |= {"string": counted(text_of), "tojson": counted(json_of)}
    return {
        **known,
        "budgeted": _budgeted,
        "concatenated": counted(_concatenated),
        "weighed": _weighed,
        "counted": counted(lambda value: value),
    }


def counted(one: Filter) -> Filter:
    """The same filter, whose calls are steps. What it makes one by one, it makes at once.

    Such iterators would be run through each other, as deep as a loop nests them.
    """
    wants: str = getattr(getattr(one, "jinja_pass_arg", None), "name", "")

    @pass_context
    @functools.wraps(one, assigned=("__name__",), updated=())
    def counting(context: Context, *args: Any, **more: Any) -> Any:
        budget: Budget = context.parent[BUDGET]
        budget.step()
        own = {"context": context, "eval_context": context.eval_ctx}.get(wants, context.environment)
        made = one(own, *args, **more) if wants else one(*args, **more)
        if isinstance(made, Iterator):
            made = list(_counted(made, budget, 0))
        if bits(made) > INTEGER_BITS:
            raise TooCostly("makes too large a number")
        if isinstance(made, str | list | tuple):
            budget.make(len(made))
        return made

    return counting


@pass_context
def _budgeted(context: Context, value: Any, weight: int) -> Iterator[Any]:
    # A template may call this too, and must not win anything by it.
    if type(weight) is not int or weight < 0:
        raise SecurityError("is no filter of templates")
    # Not a generator itself: what cannot be gone through must fail here, and not in a loop's
    # `else`.
    return _counted(iter(value), context.parent[BUDGET], weight)


def _counted(values: Iterator[Any], budget: Budget, weight: int) -> Iterator[Any]:
    for value in values:
        budget.step(weight)
        yield value


@pass_context
def _concatenated(context: Context, values: list[Any]) -> str:
    texts = [text_of(value) for value in values]
    context.parent[BUDGET].write(sum(map(len, texts)))
    if any(isinstance(text, Markup) for text in texts):
        return Markup("").join(texts)
    return "".join(texts)


@pass_context
def _join(
    context: Context, values: Iterable[Any], d: str = "", attribute: str | None = None
) -> str:
    """Joins a list; the entries' `attribute` where it is given."""
    found = list(values)
    if attribute is not None:
        found = [context.environment.getitem(value, attribute) for value in found]
    texts = [text_of(value) for value in found]
    context.parent[BUDGET].write(sum(map(len, texts)) + len(text_of(d)) * len(texts))
    if context.eval_ctx.autoescape:
        return escape(d).join(texts)
    return str(d).join(texts)


@pass_context
def _replace(context: Context, value: Any, old: str, new: str) -> str:
    text, old, new = str(text_of(value)), str(text_of(old)), str(text_of(new))
    context.parent[BUDGET].write(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    """Jinja's own makes a number of as many digits as it is asked for."""
    if not isinstance(precision, int) or abs(precision) > PLACES:
        raise TooCostly(f"rounds to {PLACES} places at most")
    return FILTERS["round"](value, precision, method)


@pass_context
def _sum(
    context: Context, values: Iterable[Any], attribute: str | None = None, start: Any = 0
) -> Any:
    """Jinja's own adds lists up too, each time copying all."""
    total = start
    for value in values:
        one = value if attribute is None else context.environment.getitem(value, attribute)
        if isinstance(one, str | list | tuple) or isinstance(total, str | list | tuple):
            raise SecurityError("sum is for numbers")
        total += one
    return total


def _trim(value: Any, chars: str | None = None) -> Any:
    check_strip(chars)
    return FILTERS["trim"](value, chars)


def _weighed(value: Any) -> Any:
    weigh(value)
    return value
