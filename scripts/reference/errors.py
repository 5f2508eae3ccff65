"""The page of errors: every code with its meaning and what to do."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from allim.base import errors
from allim.events import errors as event_errors
from scripts.reference.codes import (
    Code,
    attempt_codes,
    field_codes,
    given_codes,
    problem_codes,
)
from scripts.reference.page import GENERATED, cell

WORDS = Path(__file__).with_name("words.toml")


def errors_page() -> str:
    """Problems, fields, attempts, and the exceptions of Python."""
    words: Mapping[str, Any] = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    problems, fields, attempts = codes(words)
    return "\n".join(
        [
            "# Errors and codes\n",
            GENERATED,
            "Codes are stable and for programs; words may change.\n",
            "## Problems\n",
            "What the HTTP API answers, as `application/problem+json`: `status`, `code`, `detail`"
            " and, where fields are wrong, `errors` with the place (a JSON pointer, or the name of"
            " a parameter or header), code and message of each. The `/jobs/*` routes have a shape"
            " of their own: [schedule the sync](../how-to/schedule-the-sync.md#outside-allim).\n",
            "| code | status | means | what to do |",
            "| --- | --- | --- | --- |",
            *_problems(problems, words),
            "",
            "## Fields\n",
            "The `code` of an entry in `errors`. Beside these there are pydantic's own types"
            " (`missing`, `string_too_long`, `enum`, `uuid_parsing` …).\n",
            "| code | for example |",
            "| --- | --- |",
            *_fields(fields, words["fields"]),
            "",
            "## Attempts\n",
            "The `error_code` of a delivery and of its attempts, and what outcome it comes with:"
            " *delivered* (a success without a call, or one that was there already), *retry*"
            " (spends one of `max_attempts`), *refused* (a dead letter), *snooze* and *fault*"
            " (nothing is spent), *skip*, *unknown* and *cut short* (sent again, or held on"
            " channels set to at most once). Beside these there are the other side's own words:"
            " Slack's (`no_service`), Solapi's (`InvalidAPIKey`), SQS's. By status, with what to"
            " do:"
            " [why did it not arrive](../runbook/why-did-it-not-arrive.md).\n",
            "| code | outcome | means |",
            "| --- | --- | --- |",
            *_attempts(attempts, words["attempts"]),
            "",
            "## Exceptions\n",
            "In Python everything that Allim raises on purpose is an `AllimError`:\n",
            "```text",
            *_tree(errors),
            "```\n",
            "And of events:\n",
            "```text",
            *_tree(event_errors),
            "```",
        ]
    )


def codes(words: Mapping[str, Any]) -> tuple[list[Code], list[Code], list[Code]]:
    """Every code of problems, fields and attempts.

    Ends the program where the source and words.toml do not fit together: words for what is not
    there any more, a code that is given but would be in no table.
    """
    handed_on = _Used(words["handed_on"])
    problems, fields = problem_codes(handed_on), field_codes(handed_on)
    attempts = attempt_codes(handed_on)
    _refuse_stale(words["problems"], problems)
    _refuse_stale(words["attempts"], attempts)
    _refuse_stale(words["fields"], fields)
    if unused := sorted(set(words["handed_on"]) - handed_on.used):
        raise SystemExit(f"{WORDS}: the source has no longer {', '.join(unused)}")
    problems += [Code(code, *told) for code, told in words["problems_made"].items()]
    attempts += [Code(code, *told) for code, told in words["attempts_made"].items()]
    known = {each.code for each in (*problems, *fields, *attempts)}
    if lost := {c: at for c, at in given_codes().items() if c not in known | set(words["inner"])}:
        raise SystemExit(f"in no table of errors.md, so say in {WORDS} what they are: {lost}")
    return sorted(problems), fields, sorted(attempts)


class _Used(dict[str, Sequence[str]]):
    """Remembers what was asked for."""

    def __init__(self, known: Mapping[str, Sequence[str]]) -> None:
        super().__init__(known)
        self.used: set[str] = set()

    def __getitem__(self, place: str) -> Sequence[str]:
        self.used.add(place)
        return super().__getitem__(place)


def _problems(codes: Sequence[Code], words: Mapping[str, Any]) -> Iterator[str]:
    for each in codes:
        told = words["problems"].get(each.code, {})
        means = told.get("means") or each.words
        do = told.get("do") or words["status"].get(each.kind, "")
        yield f"| `{each.code}` | {each.kind} | {_said(each.code, means)} | {cell(do)} |"


def _fields(codes: Sequence[Code], words: Mapping[str, str]) -> Iterator[str]:
    for each in codes:
        yield f"| `{each.code}` | {_said(each.code, words.get(each.code) or each.words)} |"


def _attempts(codes: Sequence[Code], words: Mapping[str, Any]) -> Iterator[str]:
    rows: dict[str, tuple[list[str], str]] = {}
    for each in codes:
        kinds, means = rows.setdefault(each.code, ([], ""))
        kinds.append(each.kind)
        rows[each.code] = kinds, max(means, each.words, key=len)
    for code, (kinds, means) in rows.items():
        told = words.get(code, {})
        kind = told.get("kind") or " or ".join(kinds)
        yield f"| `{code}` | {kind} | {_said(code, told.get('means') or means)} |"


def _said(code: str, means: str) -> str:
    if not means:
        raise SystemExit(f"{WORDS}: say what {code} means")
    return cell(means)


def _refuse_stale(words: Mapping[str, Any], codes: Sequence[Code]) -> None:
    if stale := sorted(set(words) - {each.code for each in codes}):
        raise SystemExit(f"{WORDS}: the source has no code {', '.join(stale)} any more")


def _tree(module: Any) -> Iterator[str]:
    """The drawing at the top of a module of errors."""
    drawn = (inspect.getdoc(module) or "").splitlines()
    yield from (line for line in drawn if line.endswith("Error") or line[:1] in "│├└")
