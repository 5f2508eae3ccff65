"""Alimtalk: the text that Kakao approved, its `#{name}` filled, and held against what is asked.

Kakao shows nothing but the approved text, so a difference is told to the caller, before anything
is paid and refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from allim.channels.korean_sms import VARIABLE, render, tidy, variables_of
from allim.hub.templates.sandbox import MissingVariables, RenderingFailed


@dataclass(frozen=True, slots=True)
class Approved:
    """An approved text."""

    text: str

    @classmethod
    def of(cls, text: str) -> Approved:
        """The text, in one spelling."""
        return cls(tidy(text))

    @property
    def variables(self) -> Sequence[str]:
        """The names of its `#{name}`, in order."""
        return variables_of(self.text)

    def fill(
        self,
        values: Mapping[str, Any],
        *,
        payload: Mapping[str, Any],
        own_message: str | None,
        message: str | None,
    ) -> tuple[str, dict[str, Any]]:
        """The text as Kakao will show it, and the payload by which the channel says so.

        Variables are the payload's own, else those of `values`. `own_message` (the delivery's own
        words) must be what comes out; a `message` that is the text already needs no variables.
        Raises MissingVariables, and RenderingFailed where the words are not the approved ones.
        """
        given = _own_variables(payload)
        known = {
            name: value
            for name in self.variables
            if (value := given.get(name, _scalar(values, name))) is not None
        }
        if (template_text := payload.get("template_text")) is not None and (
            not isinstance(template_text, str) or tidy(template_text) != self.text
        ):
            raise RenderingFailed("payload.template_text is not the approved text")
        said = tidy(own_message) if own_message is not None else None
        if said == self.text:
            said = None
        missing = [name for name in self.variables if name not in known]
        if not missing:
            text = render(self.text, known)
            if said is not None and said != text:
                raise RenderingFailed(f"the message is not the approved text: {_where(text, said)}")
            return text, {"template_text": self.text, "variables": {**given, **known}}
        shown = said if said is not None else tidy(message or "")
        if self.matches(shown):
            return shown, {"template_text": shown, "variables": given}
        if said is not None:
            raise RenderingFailed(
                f"the message is not the approved text: {_where(self.text, said)}"
            )
        raise MissingVariables([f"#{{{name}}}" for name in missing])

    def matches(self, text: str) -> bool:
        """Whether a text is this one with something in the place of each `#{name}`."""
        first, *rest = VARIABLE.split(self.text)[::2]
        if not rest:
            return text == first
        *between, last = rest
        if not text.startswith(first) or VARIABLE.search(text):
            return False
        at = len(first)
        for literal in between:
            found = text.find(literal, at)
            if found < 0:
                return False
            at = found + len(literal)
        return text.endswith(last) and len(text) - len(last) >= at


def _own_variables(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload's variables by bare name; what is wrong with them the channel says."""
    given = payload.get("variables")
    if not isinstance(given, Mapping):
        return {}
    return {
        name[2:-1] if name.startswith("#{") and name.endswith("}") else name: (
            tidy(value) if isinstance(value, str) else str(value)
        )
        for name, value in given.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }


def _scalar(values: Mapping[str, Any], name: str) -> str | None:
    found: Any = values
    for step in (name,) if name in values else name.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return tidy(found)
    if isinstance(found, int | float) and not isinstance(found, bool):
        return str(found)
    return None


def _where(wanted: str, said: str) -> str:
    """Where two texts part, shown with a little of both."""
    at = next(
        (i for i, (a, b) in enumerate(zip(wanted, said, strict=False)) if a != b),
        min(len(wanted), len(said)),
    )
    return f"from character {at + 1} it has {said[at : at + 20]!r} for {wanted[at : at + 20]!r}"
