"""Every code that the source gives to an error or an attempt, read from its syntax.

Where a code is handed on from elsewhere (`failure.code`), words.toml says which it may be. What
can neither be read nor is said there stops `make docs`, and so does a code that is given to
something that takes a `code` and is in no table of the page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature

from allim.base import errors
from allim.relay.outcomes import Outcome
from scripts.reference.page import SOURCE
from scripts.reference.syntax import MADE_UP, Call, calls, module_of, parameters_of, sentence, texts

NOT_ASKED = frozenset({"bench", "client", "demo", "testing"})
"""Packages whose errors nobody sees who calls Allim."""
OF_ANSWER = "outcome_of_answer"
"""Refuses with the `code` that it is given."""
IN_SQL = re.compile(r"\berror_code = '(\w+)'")

HandedOn = Mapping[str, Sequence[str]]
"""By `file: call(expression)` the codes that the expression may be."""


@dataclass(frozen=True, slots=True, order=True)
class Code:
    """One code: its HTTP status or kind of outcome, and the words that come with it."""

    code: str
    kind: str
    words: str = ""


def problem_codes(handed_on: HandedOn) -> list[Code]:
    """The `code` of every problem document."""
    found = {Code("invalid_request", "422")}
    for call in _calls():
        status, code, words = _of_problem(call)
        if status and code is not None:
            read = _read(call, code, words, handed_on)
            found |= {Code(each, status, told) for each, told in read}
    return _one_each(found)


def field_codes(handed_on: HandedOn) -> list[Code]:
    """The `code` of every entry in a problem's `errors` that is not pydantic's own."""
    found = set()
    for call in _calls():
        if call.name == "FieldProblem":
            code, words = call.argument(1, "code"), call.argument(2, "message")
        elif call.name == "PydanticCustomError":
            code, words = call.argument(0), call.argument(1)
        else:
            continue
        found |= {Code(each, "", told) for each, told in _read(call, code, words, handed_on)}
    return _one_each(found)


def attempt_codes(handed_on: HandedOn) -> list[Code]:
    """The `error_code` that attempts and deliveries carry, with the outcome it stands for."""
    found = set()
    for call in _calls():
        for verb in _verbs(call):
            words = call.argument(2 if verb == "snooze" else 1, "detail")
            kind = verb.replace("_", " ")
            code = call.argument(None if call.name == OF_ANSWER else 0, "code")
            found |= {Code(each, kind, told) for each, told in _read(call, code, words, handed_on)}
    return _one_each(found)


def given_codes() -> dict[str, str]:
    """Every code that is given to what takes a `code`, and where."""
    found = {}
    for call in _calls():
        for each in texts(call, call.argument(_takers().get(call.last_name), "code")) or ():
            if each and not _is_made_up(each):
                found[each] = f"{call.file}:{call.node.lineno}"
    for path in sorted(SOURCE.rglob("*.sql")):
        for each in IN_SQL.findall(path.read_text(encoding="utf-8")):
            found[each] = str(path.relative_to(SOURCE))
    return found


def _of_problem(call: Call) -> tuple[str, ast.expr | None, ast.expr | None]:
    """Status, code and words of a call that makes a problem; an empty status where none does."""
    if call.name in ("problem", "Refused"):
        status = call.argument(0, "status")
        told = str(status.value) if isinstance(status, ast.Constant) else ""
        return told, call.argument(1, "code"), call.argument(2)
    of_super = ast.unparse(call.node.func) == "super().__init__"
    error = _error(call.file, call.in_class if of_super else call.name)
    if error is None:
        return "", None, None
    if issubclass(error, errors.InvalidRequest):
        code, words = call.argument(None, "code"), None
    else:
        code, words = call.argument(0, "code"), call.argument(1, "message")
    takes_a_code = "code" in signature(error).parameters
    # What a constructor hands on to the next was read where it was called.
    return ("" if of_super == takes_a_code else str(error.status)), code, words


def _error(file: str, name: str) -> type[errors.RequestError] | None:
    found = vars(module_of(file)).get(name) if name else None
    is_one = isinstance(found, type) and issubclass(found, errors.RequestError)
    return found if is_one else None


def _verbs(call: Call) -> Iterator[str]:
    """The verbs of Outcome that a call may be."""
    if call.name == OF_ANSWER:
        yield "refused"
        return
    for func in call.values_of(call.name) if call.name else [call.node.func]:
        for node in [func.body, func.orelse] if isinstance(func, ast.IfExp) else [func]:
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "Outcome"
                and hasattr(Outcome, node.attr)
            ):
                yield node.attr


def _read(
    call: Call, code: ast.expr | None, words: ast.expr | None, handed_on: HandedOn
) -> Iterator[tuple[str, str]]:
    """The codes that an expression may be, each with the words that come with it."""
    if isinstance(code, ast.Name) and (callers := call.callers_with(code.id)):
        for caller, value in callers:
            told = words
            if isinstance(words, ast.Name):
                told = {id(each): v for each, v in call.callers_with(words.id)}.get(id(caller))
            yield from _read(caller, value, told, handed_on)
        return
    read = texts(call, code)
    if read is None or any(map(_is_made_up, read)):
        assert code is not None
        place = f"{call.file}: {ast.unparse(call.node.func)}({ast.unparse(code)})"
        if place not in handed_on:
            raise SystemExit(
                f"{call.file}:{call.node.lineno}: `{ast.unparse(code)}` cannot be read: say in"
                f' words.toml, [handed_on], which codes "{place}" may be'
            )
        read = list(handed_on[place])
    yield from ((each, sentence(call, words)) for each in read if each)


def _is_made_up(code: str) -> bool:
    """Whether more than the end of a code is made at run time, as it may be in `http_…`."""
    return MADE_UP in code[:-1] or code == MADE_UP


def _one_each(codes: set[Code]) -> list[Code]:
    """One of each code and kind: the one whose words say most."""
    best: dict[tuple[str, str], Code] = {}
    for code in sorted(codes):
        known = best.get((code.code, code.kind))
        if known is None or len(code.words) > len(known.words):
            best[code.code, code.kind] = code
    return sorted(best.values())


def _calls() -> Iterator[Call]:
    return (call for call in calls() if call.file.split("/")[0] not in NOT_ASKED)


@cache
def _takers() -> Mapping[str, int]:
    """Exceptions that carry a `code`: the place of that among the arguments."""
    return {"problem": 1} | {
        call.in_class: parameters_of(call.function).index("code")
        for call in _calls()
        if ast.unparse(call.node.func) == "super().__init__"
        and call.function is not None
        and "code" in parameters_of(call.function)
    }
