"""Every code that the source gives to an error or an attempt, read from its syntax."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from allim.base import errors
from allim.relay.outcomes import Outcome
from allim.web import problems
from scripts.reference.page import SOURCE

NOT_ASKED = frozenset({"bench", "cli", "client", "demo", "testing"})
"""Packages whose errors no caller of the API sees."""


@dataclass(frozen=True, slots=True, order=True)
class Code:
    """One code: its HTTP status or kind of outcome, and the words that come with it."""

    code: str
    kind: str
    words: str = ""


def problem_codes() -> list[Code]:
    """The `code` of every problem document."""
    classes = _request_errors()
    found = set()
    for call in _calls():
        name, arguments = _name(call), list(call.args)
        if name in ("problem", "Refused") and arguments:
            status = arguments.pop(0)
            kind = str(status.value) if isinstance(status, ast.Constant) else ""
        elif name in classes:
            kind = str(classes[name])
        else:
            continue
        if name == "InvalidRequest":
            code = next((k.value for k in call.keywords if k.arg == "code"), None)
        else:
            code = arguments[0] if arguments else None
        words = arguments[1] if len(arguments) > 1 and name != "InvalidRequest" else None
        found |= {Code(each, kind, _text(words)) for each in _texts(code) if kind}
    found.add(Code("invalid_request", "422"))
    found.add(Code("idempotency_mismatch", "422"))
    return _one_each(found)


def field_codes() -> list[Code]:
    """The `code` of every entry in a problem's `errors` that is not pydantic's own."""
    found = set()
    for call in _calls():
        if _name(call) == "FieldProblem" and len(call.args) == 3:
            found |= {Code(each, "", _text(call.args[2])) for each in _texts(call.args[1])}
    return _one_each(found)


def attempt_codes() -> list[Code]:
    """The `error_code` that attempts and deliveries carry, with the outcome it stands for."""
    found = set()
    for call in _calls():
        function = call.func
        if not (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and function.value.id == "Outcome"
            and hasattr(Outcome, function.attr)
        ):
            continue
        kind = "cut short" if function.attr == "cut_short" else function.attr
        words = next((k.value for k in call.keywords if k.arg == "detail"), None)
        if words is None and kind != "snooze" and len(call.args) > 1:
            words = call.args[1]
        elif kind == "snooze" and len(call.args) > 2:
            words = call.args[2]
        if call.args:
            found |= {Code(each, kind, _text(words)) for each in _texts(call.args[0])}
    return _one_each(found)


def _one_each(codes: set[Code]) -> list[Code]:
    """One of each code and kind: the one whose words say most."""
    best: dict[tuple[str, str], Code] = {}
    for code in sorted(codes):
        known = best.get((code.code, code.kind))
        if known is None or len(code.words) > len(known.words):
            best[code.code, code.kind] = code
    return sorted(best.values())


def _request_errors() -> Mapping[str, int]:
    return {
        name: found.status
        for module in (errors, problems)
        for name, found in vars(module).items()
        if isinstance(found, type)
        and issubclass(found, errors.RequestError)
        and found is not problems.Refused
    }


def _calls() -> Iterator[ast.Call]:
    for path in sorted(SOURCE.rglob("*.py")):
        if Path(path.relative_to(SOURCE)).parts[0] in NOT_ASKED:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield node


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _texts(node: ast.expr | None) -> Iterator[str]:
    """The constant texts that an expression may be; what is made at run time is left out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _texts(value)


def _text(node: ast.expr | None) -> str:
    """A message with … where something is put in; nothing where all of it is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return ""
