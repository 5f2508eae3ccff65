"""What the drafts of texts and Alimtalk have in common: number, sender, variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from allim.base.errors import FieldProblem
from allim.channels.channel import Draft
from allim.channels.korean_sms import (
    BadNumber,
    normalise_number,
    normalise_sender,
    tidy,
    variables_of,
)

VALUE_LIMIT = 1000
Problems = list[FieldProblem]


def recipient_of(draft: Draft, problems: Problems) -> str:
    """The recipient's number as digits."""
    if not draft.recipient:
        problems.append(FieldProblem("/recipient", "missing", "a text needs a mobile number"))
        return ""
    try:
        return normalise_number(draft.recipient)
    except BadNumber as error:
        problems.append(FieldProblem("/recipient", error.code, str(error)))
        return ""


def sender_of(draft: Draft, usual: str | None, problems: Problems) -> str | None:
    """The sender's number: the delivery's own, else the usual one."""
    own = draft.payload.get("sender")
    if own is None:
        return usual
    try:
        return normalise_sender(own if isinstance(own, str) else "")
    except BadNumber as error:
        problems.append(FieldProblem("/payload/sender", error.code, str(error)))
        return None


def variables_in(payload: Mapping[str, Any], problems: Problems) -> dict[str, str]:
    """The values of `#{name}` by bare name; keys may be written either way."""
    given = payload.get("variables")
    if given is None:
        return {}
    place = "/payload/variables"
    if not isinstance(given, Mapping):
        problems.append(FieldProblem(place, "invalid", "must be an object of texts"))
        return {}
    values: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            problems.append(FieldProblem(f"{place}/{name}", "invalid", "must be a text"))
            continue
        if len(str(value)) > VALUE_LIMIT:
            words = f"is longer than {VALUE_LIMIT} characters"
            problems.append(FieldProblem(f"{place}/{name}", "too_long", words))
        bare = name[2:-1] if name.startswith("#{") and name.endswith("}") else name
        values[bare] = tidy(str(value))
    return values


def refuse_missing(text: str, values: Mapping[str, str], problems: Problems) -> None:
    """Name every `#{name}` of a template's text that has no value."""
    problems.extend(
        FieldProblem(f"/payload/variables/{name}", "missing", f"the template needs #{{{name}}}")
        for name in variables_of(text)
        if name not in values
    )


def text_in(payload: Mapping[str, Any], name: str, problems: Problems) -> str | None:
    """A text of the payload; None where there is none, or something else."""
    value = payload.get(name)
    if value is None or isinstance(value, str):
        return value or None
    problems.append(FieldProblem(f"/payload/{name}", "invalid", "must be a text"))
    return None
