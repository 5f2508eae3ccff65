"""The page of errors: every code with its meaning and what to do."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from allim.base import errors
from allim.events import errors as event_errors
from scripts.reference.codes import Code, attempt_codes, field_codes, problem_codes
from scripts.reference.page import GENERATED, cell

WORDS = Path(__file__).with_name("words.toml")


def errors_page() -> str:
    """Problems, fields, attempts, and the exceptions of Python."""
    words: Mapping[str, Any] = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    problems, attempts = problem_codes(), attempt_codes()
    _refuse_stale(words["problems"], problems)
    _refuse_stale(words["attempts"], attempts)
    problems += [Code(code, *told) for code, told in words["problems_made"].items()]
    attempts += [Code(code, *told) for code, told in words["attempts_made"].items()]
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
            *_problems(sorted(problems), words),
            "",
            "## Fields\n",
            "The `code` of an entry in `errors`. Beside these there are pydantic's own types"
            " (`missing`, `string_too_long`, `enum`, `uuid_parsing` …).\n",
            "| code | for example |",
            "| --- | --- |",
            *(f"| `{each.code}` | {cell(each.words)} |" for each in field_codes()),
            "",
            "## Attempts\n",
            "The `error_code` of a delivery and of its attempts, and what outcome it comes with:"
            " *delivered* (a success without a call, or one that was there already), *retry*"
            " (spends one of `max_attempts`), *refused* (a dead letter), *snooze* and *fault*"
            " (nothing is spent), *skip*, *unknown* and *cut short* (sent again, or held on"
            " channels set to at most once). By status, with what to do:"
            " [why did it not arrive](../runbook/why-did-it-not-arrive.md).\n",
            "| code | outcome | means |",
            "| --- | --- | --- |",
            *_attempts(sorted(attempts), words["attempts"]),
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


def _problems(codes: Sequence[Code], words: Mapping[str, Any]) -> Iterator[str]:
    for each in codes:
        told = words["problems"].get(each.code, {})
        means = told.get("means") or each.words
        do = told.get("do") or words["status"].get(each.kind, "")
        yield f"| `{each.code}` | {each.kind} | {cell(means)} | {cell(do)} |"


def _attempts(codes: Sequence[Code], words: Mapping[str, Any]) -> Iterator[str]:
    rows: dict[str, tuple[list[str], str]] = {}
    for each in codes:
        kinds, means = rows.setdefault(each.code, ([], ""))
        kinds.append(each.kind)
        rows[each.code] = kinds, words.get(each.code, {}).get("means") or means or each.words
    for code, (kinds, means) in rows.items():
        yield f"| `{code}` | {' or '.join(kinds)} | {cell(means)} |"


def _refuse_stale(words: Mapping[str, Any], codes: Sequence[Code]) -> None:
    if stale := sorted(set(words) - {each.code for each in codes}):
        raise SystemExit(f"{WORDS}: the source has no code {', '.join(stale)} any more")


def _tree(module: Any) -> Iterator[str]:
    """The drawing at the top of a module of errors."""
    drawn = (inspect.getdoc(module) or "").splitlines()
    yield from (line for line in drawn if line.endswith("Error") or line[:1] in "│├└")
