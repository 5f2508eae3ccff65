"""The generated reference is whole: every command, every code; what it cannot read stops it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import typer
from scripts.reference import codes as codes_module
from scripts.reference.codes import attempt_codes, field_codes, given_codes, problem_codes
from scripts.reference.commands import cli_page
from scripts.reference.errors import WORDS, codes
from scripts.reference.syntax import Call

from allim.cli.commands import app
from tests.docs.blocks import ROOT

SOURCE = ROOT / "src" / "allim"
PAGE = ROOT / "docs" / "reference" / "errors.md"
NOT_ASKED = {"bench", "client", "demo", "testing"}
GIVEN = re.compile(
    r"\b(?:Outcome\.\w+|HttpFailure|SmtpFailure|BadNumber|PydanticCustomError|Conflict|NotFound"
    r"|Forbidden|Overloaded|RequestError|problem\(\s*\d+,|Refused\(\s*\d+,)\(?\s*\"(\w+)\""
)
FIELD = re.compile(r"FieldProblem\(\s*(?:[^\s,()\"]+|f?\"[^\"]*\"),\s*\"(\w+)\"")
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
INNER = {"tls_failed", "unusable"}


@cache
def told() -> set[str]:
    """The codes of the page."""
    return set(ROW.findall(PAGE.read_text("utf-8")))


def is_told(code: str) -> bool:
    begun = (each[:-1] for each in told() if each.endswith("…") and len(each) > 4)
    return code in told() or code.startswith(tuple(begun))


def test_every_command_that_can_be_called_is_told_with_its_options() -> None:
    sections = dict(
        re.findall(
            r"^## `(allim[^`A-Z\[]*?)(?: [A-Z\[][^`]*)?`\n(.*?)(?=^## |\Z)",
            cli_page(),
            re.MULTILINE | re.DOTALL,
        )
    )
    missing = []
    for path, command in called("allim", typer.main.get_command(app)):
        if path not in sections:
            missing.append(path)
            continue
        for parameter in command.params:
            names = parameter.opts if parameter.param_type_name == "option" else ()
            absent = [n for n in names if n != "--help" and f"`{n}`" not in sections[path]]
            missing += [f"{path} {name}" for name in absent]
    assert not missing
    assert "--dry-run" in sections["allim replay"]


def called(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    if not inner or command.invoke_without_command:
        yield path, command
    for name, child in inner.items():
        yield from called(f"{path} {name}", child)


def test_every_code_that_stands_in_the_source_is_told() -> None:
    missing = {}
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE)
        if file.parts[0] in NOT_ASKED:
            continue
        text = path.read_text("utf-8")
        for code in (*GIVEN.findall(text), *FIELD.findall(text)):
            if not is_told(code) and code not in INNER:
                missing[code] = str(file)
    assert not missing


def test_every_code_that_the_console_and_the_runbook_explain_is_told() -> None:
    catalogue = SOURCE / "console" / "messages" / "en" / "notifications.toml"
    explained = set(tomllib.loads(catalogue.read_text("utf-8"))["code"])
    runbook = (ROOT / "docs" / "runbook" / "why-did-it-not-arrive.md").read_text("utf-8")
    for column in re.findall(r"^\| [A-Z]+ \| (`[^|]*) \|", runbook, re.MULTILINE):
        explained |= {code for code in re.findall(r"`([a-z_]+)`", column) if code != "attempts"}
    explained -= {"next_retry_at"}
    assert len(explained) > 50
    assert not {code for code in explained if not is_told(code)}


def test_words_and_source_fit_together() -> None:
    problems, fields, attempts = codes(tomllib.loads(WORDS.read_text("utf-8")))
    for code in ("row_key_repeated", "invalid_number", "unknown_template", "no_pf_id"):
        assert code in {each.code for each in fields}
    assert ("invalid_cursor", "400") in {(each.code, each.kind) for each in problems}
    kinds = {(each.code, each.kind) for each in attempts}
    assert {("rate_limit_turn", "snooze"), ("connect_failed", "retry")} <= kinds
    assert ("smtp_auth_failed", "fault") in kinds
    assert ("timeout_after_data", "unknown") in kinds


@pytest.mark.parametrize(
    ("read", "call"),
    [
        (attempt_codes, "Outcome.retry(failure.code, 'it failed')"),
        (attempt_codes, "Outcome.refused(f'{code}_too', 'it failed')"),
        (field_codes, "FieldProblem('/x', wrong.code, 'is wrong')"),
        (problem_codes, "Conflict(f'not_{verb}ed', 'it is not')"),
    ],
)
def test_a_code_that_cannot_be_read_stops_the_page(
    monkeypatch: pytest.MonkeyPatch, read: Any, call: str
) -> None:
    source(monkeypatch, call)
    with pytest.raises(SystemExit, match="cannot be read"):
        read({})


def test_a_code_that_an_exception_carries_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    codes_module._takers()
    source(monkeypatch, "HttpFailure('brand_new', 'the moon is full')")
    assert given_codes()["brand_new"] == "hub/operations.py:1"
    with pytest.raises(SystemExit):
        codes(tomllib.loads(WORDS.read_text("utf-8")))


def source(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Let the source be this call alone."""
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    monkeypatch.setattr(codes_module, "calls", lambda: [Call("hub/operations.py", node, ())])
