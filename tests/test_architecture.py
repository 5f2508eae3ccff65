"""The folders say the architecture; this holds them to it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_imports_keep_to_the_contracts() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout


def test_nothing_shared_is_read_before_an_await_and_written_after_it() -> None:
    """`self.seen |= await …` reads `self.seen` first: what came into it meanwhile is lost."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "src" / "allim").rglob("*.py"))
        for line in _written_over_an_await(path.read_text())
    ]
    assert not found, "await into a name of its own first"


@pytest.mark.parametrize(
    ("statement", "is_found"),
    [
        ("self.seen |= await ask()", True),
        ("self.counts[key] += len(await ask())", True),
        ("self.seen = self.seen | await ask()", True),
        ("self.seen = [*self.seen, *[one async for one in ask()]]", True),
        ("count += await ask()", True),
        ("self.seen = await ask(self.seen)", False),
        ("self.seen = await ask()", False),
        ("self.seen.update(await ask())", False),
        ("found |= await ask()", False),
        ("self.count += 1", False),
    ],
)
def test_what_is_written_over_an_await_is_found(statement: str, is_found: bool) -> None:
    source = f"async def work():\n    nonlocal count\n    {statement}\n"
    assert list(_written_over_an_await(source)) == ([3] if is_found else [])


def _written_over_an_await(source: str) -> Iterable[int]:
    nodes = list(ast.walk(ast.parse(source)))
    outer = {n for node in nodes if isinstance(node, ast.Nonlocal | ast.Global) for n in node.names}
    for node in nodes:
        if not isinstance(node, ast.AugAssign | ast.Assign):
            continue
        if not any(map(_awaits, ast.walk(node.value))):
            continue
        if isinstance(node, ast.AugAssign):
            targets: list[ast.expr] = [node.target]
        else:
            targets = [each for each in node.targets if _is_read_before_it(node.value, each)]
        if any(not isinstance(each, ast.Name) or each.id in outer for each in targets):
            yield node.lineno


def _is_read_before_it(value: ast.expr, target: ast.expr) -> bool:
    """Whether a value is put together from the target and from what is awaited."""
    read, name = list(ast.walk(value)), ast.unparse(target)
    awaited = [part for each in read if _awaits(each) for part in ast.walk(each)]
    return any(
        isinstance(each, ast.expr) and ast.unparse(each) == name and each not in awaited
        for each in read
    )


def _awaits(node: ast.AST) -> bool:
    if isinstance(node, ast.comprehension):
        return node.is_async == 1
    return isinstance(node, ast.Await)
