"""No block of the documentation promises what is not there: commands, routes, settings, SQL."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema_rs
import psycopg
import pytest
import typer

from allim.cli.commands import app
from allim.composition.settings import settings_groups
from tests.docs.blocks import PAGES, ROOT, Block, Command, blocks, commands, every, inline
from tests.docs.openapi import openapi

LANGUAGES = {
    *("conf", "console", "html", "ini", "javascript", "jinja", "json", "powershell", "python"),
    *("nginx", "sh", "sql", "text", "toml", "xml", "yaml"),
}
"""`conf` is postgresql.conf; `ini` are variables, systemd's units, pgbouncer.ini."""

SENTENCE = "sentence"

RUN_BY = {
    "docs/how-to/add-a-channel.md": "tests/channels/test_how_to.py",
    "docs/how-to/cancel-reservations.md": "tests/messaging/test_surroundings.py",
    "docs/how-to/connect-kvca.md": "tests/enrolment/lms/test_how_to.py",
    "docs/how-to/connect-solapi.md": "tests/channels/test_solapi_page.py",
    "docs/how-to/consume-events-once.md": "tests/docs/test_event_pages.py",
    "docs/how-to/events-from-django.md": "tests/docs/test_event_pages.py",
    "docs/how-to/publish-events.md": "tests/docs/test_event_pages.py",
    "docs/how-to/queue-texts-on-sqs.md": "tests/messaging/test_surroundings.py",
    "docs/how-to/webhooks.md": "tests/docs/test_blocks.py",
}
"""Pages whose Python a test of its own runs. All others are run here, from top to bottom."""

OTHERS_SETTINGS = re.compile(
    r"^(AWS_\w+|DJANGO_SETTINGS_MODULE|KAFKA_EXTRA_\w+|PYTHON|ALLIM_TEST_\w+|ALLIM_KAFKA_CACHE)$"
)
VARIABLE = re.compile(r"^(?:export |Environment=)?([A-Z][A-Z0-9]*_[A-Z0-9_]+|DEBUG)=", re.MULTILINE)
ROUTE = re.compile(r"^(GET|POST|PUT|PATCH|DELETE) (/\S*)")
OWN_ADDRESS = re.compile(r"^(?:https?://)?(?:127\.0\.0\.1|localhost):1808\d(/.*)?$")
UNTOLD = frozenset({"/docs", "/openapi.json"})
WITH_VALUE = frozenset(
    {"-H", "-d", "--data", "--data-binary", "-X", "-o", "-u", "--max-time", "-w", "--retry"}
)
AHEAD = frozenset({"sudo", "exec", "time", "env"})
# What is neither asked nor explained: it is run in a transaction that is rolled back.
ASKED = re.compile(r"^(select|with|insert|update|delete|table)\b", re.IGNORECASE)
ALONE = re.compile(r"^(vacuum|analyze|reindex|create index concurrently)\b", re.IGNORECASE)


def test_every_block_says_what_it_is() -> None:
    unknown = [
        f"{block.where}: {block.language or 'no language'}"
        for page in PAGES
        for block in blocks(page)
        if block.language not in LANGUAGES
    ]
    assert not unknown, _list(unknown)


def test_every_command_of_allim_is_there_with_its_options() -> None:
    wrong = [
        f"{command.where}: {' '.join(command.words)}: {problem}"
        for command in _all_commands()
        if (arguments := _of_allim(command)) is not None and (problem := _usage(arguments))
        # A sentence may name a command without all that it needs.
        if not (command.language == SENTENCE and problem.startswith("Missing "))
    ]
    assert not wrong, _list(wrong)


def test_every_call_of_the_api_fits_its_document() -> None:
    wrong = [
        f"{command.where}: {problem}"
        for command in _all_commands()
        if "curl" in command.words[:1] and (problem := _call(command.words))
    ]
    wrong += [
        f"{where}: {code}: no such route"
        for page in PAGES
        for where, code in inline(page)
        if (route := ROUTE.match(code)) and _operation(route[1], urlsplit(route[2]).path) is None
    ]
    assert not wrong, _list(wrong)


def test_every_make_target_is_there() -> None:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    asked = [c for c in _all_commands() if c.words[0] == "make" and len(c.words) > 1]
    wrong = [f"{c.where}: make {c.words[-1]}" for c in asked if c.words[-1] not in known]
    assert asked
    assert not wrong, _list(wrong)


def test_every_variable_is_a_setting() -> None:
    known = {name.upper() for group in settings_groups() for name in group.model_fields}
    named = [
        (f"{block.page}:{block.line + block.body[: found.start()].count(chr(10))}", found[1])
        for block in every("console", "ini", "sh")
        for found in VARIABLE.finditer(block.body)
    ]
    named += [
        (where, found[1])
        for page in PAGES
        for where, code in inline(page)
        if (found := VARIABLE.match(code))
    ]
    wrong = [f"{at}: {n}" for at, n in named if n not in known and not OTHERS_SETTINGS.match(n)]
    assert len(named) > 50
    assert not wrong, _list(wrong)


@pytest.mark.parametrize("language", ["json", "toml", "yaml"])
def test_data_can_be_read(language: str) -> None:
    import yaml  # type: ignore[import-untyped]

    reader = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}[language]
    wrong = []
    for block in every(language):
        try:
            reader(block.body)
        except ValueError as error:
            wrong.append(f"{block.where}: {error}")
    assert not wrong, _list(wrong)


def test_every_statement_of_sql_runs(database_url: str) -> None:
    wrong = []
    with psycopg.connect(database_url, autocommit=True) as database:
        for block in every("sql"):
            if block.shown_only:
                continue
            for line, statement in _statements(block):
                try:
                    _try_out(database, statement)
                except psycopg.Error as error:
                    wrong.append(f"{block.page}:{line}: {error}")
    assert not wrong, _list(wrong)


def test_every_line_of_postgresql_conf_names_a_setting(database_url: str) -> None:
    with psycopg.connect(database_url) as database:
        known = {name for (name,) in database.execute("SELECT name FROM pg_settings").fetchall()}
    wrong = [
        f"{block.where}: {name}"
        for block in every("conf")
        for name in re.findall(r"^(\w+)\s*=", block.body, re.MULTILINE)
        if name not in known
    ]
    assert not wrong, _list(wrong)


def test_what_python_imports_is_there() -> None:
    wrong = []
    for block in every("python"):
        try:
            tree = ast.parse(block.body)
        except SyntaxError as error:
            wrong.append(f"{block.page}:{block.line + (error.lineno or 1) - 1}: {error.msg}")
            continue
        if block.page in RUN_BY:
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            module = node.module
            if module.split(".")[0] == "allim":
                found = importlib.import_module(module)
                wrong += [
                    f"{block.page}:{block.line + node.lineno - 1}: {module} has no {name.name}"
                    for name in node.names
                    if not hasattr(found, name.name) and not _is_module(f"{module}.{name.name}")
                ]
    assert not wrong, _list(wrong)


def test_the_python_of_every_page_is_run(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for page, test in RUN_BY.items():
        assert Path(page).stem in (ROOT / test).read_text("utf-8"), f"{test} does not run {page}"
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    pages: dict[str, list[Block]] = {}
    for block in every("python"):
        if block.page not in RUN_BY and not block.shown_only:
            pages.setdefault(block.page, []).append(block)
    for page, code in pages.items():
        names: dict[str, Any] = {"__name__": "__main__"}
        for block in code:
            # The line numbers of a traceback are those of the page.
            source = "\n" * (block.line - 1) + block.body
            exec(compile(source, str(ROOT / page), "exec"), names)


def _list(problems: Sequence[str]) -> str:
    return "\n".join(["", *problems])


def _all_commands() -> Iterator[Command]:
    for block in every("console", "ini", "sh"):
        yield from commands(block)
    for page in PAGES:
        if page.name == "cli.md":
            continue
        for where, code in inline(page):
            if code.startswith(("allim ", "make ")) and not re.search(r"[|…<]", code):
                name, _, line = where.partition(":")
                yield from commands(Block(name, int(line), SENTENCE, code))


# allim


def _of_allim(command: Command) -> Sequence[str] | None:
    """The arguments of `allim`, however it is called; None where it is another program."""
    words = list(command.words)
    while words and words[0] in AHEAD:
        words.pop(0)
    for at, word in enumerate(words):
        # In a crontab fields stand before it, before others `sudo -u` and the like.
        if word.endswith("/bin/allim") or (at == 0 and word == "allim"):
            return words[at + 1 :]
    return None


@cache
def _root() -> Any:
    return typer.main.get_command(app)


def _usage(arguments: Sequence[str]) -> str | None:
    """What is wrong with a call of `allim`; nothing is run."""
    command: Any = _root()
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        inner = command.commands.get(rest[0])
        if inner is None:
            return f"there is no command {rest[0]}"
        command, rest = inner, rest[1:]
    rest = [re.sub(r"^(ID|\$\w+)$", "7", word) for word in rest]
    try:
        command.make_context("allim", rest)
    except Exception as error:  # typer has a click of its own, whose errors have no public name
        if type(error).__name__ in {"Exit", "NoArgsIsHelpError"}:
            return None
        if not hasattr(error, "format_message"):
            raise
        said = str(error.format_message())
        # A file that the block itself would have written.
        return None if said.endswith("does not exist.") else said
    return None


# curl


def _call(words: Sequence[str]) -> str | None:
    """What is wrong with a curl call; calls of others are passed over."""
    options: dict[str, str] = {}
    addresses = []
    waiting = iter(words[1:])
    for word in waiting:
        if word in WITH_VALUE:
            options[word] = next(waiting, "")
        elif not word.startswith("-"):
            addresses.append(word)
    if len(addresses) != 1:
        return f"not one address: {addresses}"
    own = OWN_ADDRESS.match(addresses[0])
    if own is None:
        return None
    url = urlsplit(own[1] or "/")
    data = options.get("-d", options.get("--data", options.get("--data-binary")))
    method = options.get("-X", "GET" if data is None else "POST")
    if url.path in UNTOLD:
        return None
    operation = _operation(method, url.path)
    if operation is None:
        return f"there is no route {method} {url.path}"
    known = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    unknown = {name for name, _ in parse_qsl(url.query, keep_blank_values=True)} - known
    if unknown:
        return f"{method} {url.path} takes no {', '.join(sorted(unknown))}"
    if data is None or data.startswith("@") or "$" in data or "…" in data:
        return None
    if not any(words[at] == "-H" and "json" in words[at + 1] for at in range(len(words) - 1)):
        return f"{method} {url.path} is sent without Content-Type: application/json"
    return _body(operation, data, method, url.path)


def _body(operation: Mapping[str, Any], data: str, method: str, path: str) -> str | None:
    try:
        body = json.loads(data)
    except ValueError as error:
        return f"{method} {path}: the body is not JSON: {error}"
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return f"{method} {path} takes no body"
    schema = {**content["application/json"]["schema"], "components": openapi()["components"]}
    errors = jsonschema_rs.Draft202012Validator(schema).iter_errors(body)
    return next((f"{method} {path}: {each.message}" for each in errors), None)


def _operation(method: str, path: str) -> Mapping[str, Any] | None:
    parts = path.strip("/").split("/")
    best: tuple[int, Mapping[str, Any]] | None = None
    for template, operations in _paths().items():
        if method.lower() not in operations:
            continue
        wanted = template.strip("/").split("/")
        fits = len(wanted) == len(parts) and all(
            one == two or one.startswith("{") for one, two in zip(wanted, parts, strict=True)
        )
        exact = sum(one == two for one, two in zip(wanted, parts, strict=False))
        if fits and (best is None or exact > best[0]):
            best = exact, operations[method.lower()]
    return best[1] if best else None


@cache
def _paths() -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = openapi()["paths"]
    return found


# SQL and Python


def _statements(block: Block) -> Iterator[tuple[int, str]]:
    line = block.line
    for statement in block.body.split(";"):
        bare = re.sub(r"--[^\n]*", "", statement).strip()
        if bare:
            yield line + len(statement) - len(statement.lstrip("\n")), bare
        line += statement.count("\n")


def _try_out(database: psycopg.Connection[Any], statement: str) -> None:
    if ALONE.match(statement):
        database.execute(statement.encode())
        return
    with database.transaction(force_rollback=True):
        explain = b"EXPLAIN " if ASKED.match(statement) else b""
        database.execute(explain + statement.encode())


def _is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
