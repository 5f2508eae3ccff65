"""Jinja for people who may be careless or worse: no way out, and an end to everything.

A template sees JSON values only. What it may call is listed, loops and calls are counted, what it
writes is counted where it is written (captured text too), and the thread's CPU time ends what
slips through: a template that is too costly fails, and nobody waits for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import (
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    UndefinedError,
    meta,
    pass_context,
)
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from allim.hub.templates.bounding import bounded, weights_of
from allim.hub.templates.budget import (
    BUDGET,
    INTEGER_BITS,
    RANGE,
    SIZE,
    Budget,
    TooCostly,
    bits,
    check_product,
    check_strip,
    text_of,
    weigh,
)
from allim.hub.templates.filters import filters
from allim.hub.templates.missing import noting, path_of

_GLOBALS = frozenset({"dict", "namespace"})
_TEXT_METHODS = frozenset({
    "capitalize", "casefold", "count", "endswith", "find", "isalnum", "isalpha", "isdigit",
    "islower", "isupper", "lower", "lstrip", "removeprefix", "removesuffix", "rstrip", "split",
    "splitlines", "startswith", "strip", "title", "upper",
})  # fmt: skip
_STRIPS = frozenset({"lstrip", "rstrip", "strip"})
_MAPPING_METHODS = frozenset({"get", "items", "keys", "values"})
_SEQUENCE_METHODS = frozenset({"count", "index"})


class BadTemplate(Exception):
    """A source that is no template; says where."""


class MissingVariables(Exception):
    """What a template needs and was not given; `names` as paths (``customer.name``)."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(", ".join(names))


class RenderingFailed(Exception):
    """A template that cannot be rendered with these values, for another reason."""


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment whose templates end. `escapes` is for HTML."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *, escapes: bool = False, undefined: type[Undefined] = StrictUndefined):
        super().__init__(
            autoescape=escapes,
            undefined=undefined,
            finalize=_finish,
            optimized=False,
            keep_trailing_newline=False,
            cache_size=0,
        )
        self.filters = {**filters(), "own": self.own}
        kept: dict[str, Any] = {name: self.globals[name] for name in _GLOBALS}
        self.globals.clear()
        self.globals.update(kept, range=_range)
        del self.tests["escaped"]

    def finish(self, budget: Budget, value: Any) -> Any:
        """A value on its way into the text."""
        if isinstance(value, Undefined):
            return value
        text = text_of(value)
        budget.write(len(text))
        return text

    @staticmethod
    def own(text: str) -> str:
        """A text that stands in the template itself, where a value might."""
        return text

    def wrap_str_format(self, value: Any) -> None:
        """`format` is as unsafe as other methods: its widths make much out of little."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Methods that cannot make much out of little."""
        if isinstance(obj, str):
            return attr in _TEXT_METHODS
        if isinstance(obj, Mapping):
            return attr in _MAPPING_METHODS
        if isinstance(obj, list | tuple):
            return attr in _SEQUENCE_METHODS
        if isinstance(obj, int | float):
            return False
        return bool(super().is_safe_attribute(obj, attr, value))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A key goes before a method: `order.items` is the order's items where it has any."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Count a call, and all that its macro may write."""
        budget: Budget = __context.parent[BUDGET]
        weight = 0
        if isinstance(__obj, Macro):
            weight = __context.parent[_WEIGHTS].get(__obj.name, 0)
        budget.step(weight)
        weigh([*args, *kwargs.values()])
        if getattr(__obj, "__name__", "") in _STRIPS:
            check_strip(args[0] if args else None)
        made = super().call(__context, __obj, *args, **kwargs)
        if isinstance(made, str | list):
            budget.make(len(made))
        return made

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operators by which little becomes much."""
        context.parent[BUDGET].step()
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% does not format text here; write the value beside the text")
        if operator == "*":
            check_product(left, right)
            check_product(right, left)
        if operator == "**" and bits(left) * (abs(right) if bits(right) else 1) > INTEGER_BITS:
            raise TooCostly("makes too large a number")
        if operator == "+" and isinstance(left, str | list | tuple):
            weigh([left, right])
        return super().call_binop(context, operator, left, right)


_WEIGHTS = "\0weights"


@dataclass(frozen=True, slots=True)
class Source:
    """A compiled template text; `variables` are the names that it mentions and does not set."""

    text: str
    environment: Sandbox
    template: Template
    weights: Mapping[str, int]
    variables: frozenset[str]

    @classmethod
    def compile(cls, text: str, environment: Sandbox) -> Source:
        """Compile. Raises BadTemplate."""
        try:
            tree = environment.parse(text)
            variables = meta.find_undeclared_variables(tree) - set(environment.globals)
            weights = weights_of(tree)
            template = environment.from_string(bounded(tree))
        except TemplateSyntaxError as error:
            raise BadTemplate(f"line {error.lineno}: {error.message}") from None
        except (TemplateError, RecursionError, MemoryError, ValueError, SyntaxError) as error:
            raise BadTemplate(str(error) or type(error).__name__) from None
        return cls(text, environment, template, weights, frozenset(variables))

    def render(self, values: Mapping[str, Any], budget: Budget | None = None) -> str:
        """The text. Raises MissingVariables, naming all there are, and RenderingFailed."""
        try:
            return self._render(values, budget or Budget())
        except UndefinedError as error:
            missing = self._missing(values)
            if missing:
                raise MissingVariables(missing) from None
            raise RenderingFailed(error.message or "something is undefined") from None
        except (TemplateError, RecursionError, MemoryError) as error:
            raise RenderingFailed(str(error) or type(error).__name__) from None
        except Exception as error:
            # The template's boundary: what its expressions do with these values (a text minus a
            # number, a division by zero) raises whatever Python raises.
            raise RenderingFailed(f"{type(error).__name__}: {error}") from None

    def _render(self, values: Mapping[str, Any], budget: Budget) -> str:
        context = {**values, BUDGET: budget, _WEIGHTS: self.weights}
        parts: list[str] = []
        size = 0
        for part in self.template.root_render_func(self.template.new_context(context)):
            size += len(part)
            if size > SIZE:
                raise TooCostly(f"writes more than {SIZE} characters")
            parts.append(part)
        return "".join(parts)

    def _missing(self, values: Mapping[str, Any]) -> Sequence[str]:
        """What is missing, in the order in which it is met: as if each were an empty text."""
        names: dict[str, None] = {}
        noted = noting(lambda obj, name: names.setdefault(path_of(values, obj, name)))
        environment = Sandbox(escapes=bool(self.environment.autoescape), undefined=noted)
        # What reckons with a missing value fails; what was met before it is known.
        with contextlib.suppress(Exception):
            Source.compile(self.text, environment)._render(values, Budget())
        return list(names)


@lru_cache(maxsize=2)
def text_sandbox() -> Sandbox:
    """For plain text."""
    return Sandbox()


@lru_cache(maxsize=2)
def html_sandbox() -> Sandbox:
    """For HTML: values are escaped."""
    return Sandbox(escapes=True)


@pass_context
def _finish(context: Context, value: Any) -> Any:
    environment = context.environment
    assert isinstance(environment, Sandbox)
    return environment.finish(context.parent[BUDGET], value)


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > RANGE:
        raise TooCostly(f"range() goes to {RANGE} at most")
    return found
