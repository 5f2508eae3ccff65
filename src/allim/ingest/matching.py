"""Matchers on labels, in Alertmanager's words: `severity="critical"`, `team=~"db|web"`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Labels = Mapping[str, str | Sequence[str]]
"""Values by name. A label that is not there is as an empty one; one of several values matches
where any of them does."""

_MATCHER = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPES = {"n": "\n"}


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label; a pattern must match the whole value."""

    name: str
    pattern: re.Pattern[str]
    negated: bool

    def matches(self, labels: Labels) -> bool:
        """Whether the labels fulfil it."""
        value = labels.get(self.name, "")
        values = (value,) if isinstance(value, str) else value or ("",)
        return any(self.pattern.fullmatch(each) for each in values) is not self.negated


def read_matcher(text: str) -> Matcher:
    """Read one matcher. Raises ValueError, saying what is wrong with it."""
    found = _MATCHER.fullmatch(text)
    if found is None:
        raise ValueError('must be like severity="critical" (with =, !=, =~ or !~)')
    name, operator, value = found.groups()
    if value.startswith('"'):
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            raise ValueError("has a quote that is not closed, or text behind it")
        value = re.sub(r"\\(.)", lambda each: _ESCAPES.get(each[1], each[1]), quoted[1])
        if operator.endswith("~"):
            value = quoted[1].replace('\\"', '"')
    if not operator.endswith("~"):
        return Matcher(name, re.compile(re.escape(value)), operator == "!=")
    try:
        return Matcher(name, re.compile(value), operator == "!~")
    except re.error as error:
        raise ValueError(f"has a pattern that cannot be: {error}") from None
