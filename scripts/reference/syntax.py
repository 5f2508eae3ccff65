"""The calls in Allim's source, and what texts their arguments may be."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from scripts.reference.page import SOURCE

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
MADE_UP = "…"
"""Stands for what is put into a text at run time."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call, and the classes and functions that it stands in, the innermost last."""

    file: str
    node: ast.Call
    around: Sequence[ast.ClassDef | Function]

    @property
    def name(self) -> str:
        """What is called, where that has a plain name."""
        return self.node.func.id if isinstance(self.node.func, ast.Name) else ""

    @property
    def last_name(self) -> str:
        """The last part of the name of what is called."""
        func = self.node.func
        return func.attr if isinstance(func, ast.Attribute) else self.name

    @property
    def function(self) -> Function | None:
        """The innermost function that it stands in."""
        functions = [each for each in self.around if not isinstance(each, ast.ClassDef)]
        return functions[-1] if functions else None

    @property
    def in_class(self) -> str:
        """The name of the innermost class that it stands in."""
        return next((e.name for e in reversed(self.around) if isinstance(e, ast.ClassDef)), "")

    def argument(self, place: int | None, name: str = "") -> ast.expr | None:
        """An argument by its place, or by its name."""
        if place is not None and place < len(self.node.args):
            return self.node.args[place]
        return next((each.value for each in self.node.keywords if each.arg == name), None)

    def values_of(self, name: str) -> list[ast.expr]:
        """All that a variable of the function is assigned; none where it is a parameter."""
        found: list[ast.expr] = []
        for each in ast.walk(self.function) if self.function else ():
            if isinstance(each, ast.Assign):
                for target in each.targets:
                    if isinstance(target, ast.Name) and target.id == name:
                        named = {n.id for n in ast.walk(each.value) if isinstance(n, ast.Name)}
                        found += [] if name in named else [each.value]
                    elif isinstance(target, ast.Tuple) and isinstance(each.value, ast.Tuple):
                        pairs = zip(target.elts, each.value.elts, strict=True)
                        found += [v for t, v in pairs if isinstance(t, ast.Name) and t.id == name]
        return sorted(found, key=lambda value: value.lineno)

    def callers_with(self, name: str) -> list[tuple[Call, ast.expr]]:
        """The calls of the function within its file, with what they hand to a parameter."""
        function = self.function
        parameters = parameters_of(function) if function else []
        if function is None or name not in parameters:
            return []
        called = self.in_class if function.name == "__init__" else function.name
        return [
            (call, value)
            for call in calls()
            if call.file == self.file and call.last_name == called and call.function is not function
            if (value := call.argument(parameters.index(name), name)) is not None
        ]

    def constant(self, name: str) -> str | None:
        """The text that the module knows by this name."""
        found = vars(module_of(self.file)).get(name)
        return found if isinstance(found, str) else None


def texts(call: Call, node: ast.expr | None) -> list[str] | None:
    """The texts that an expression may be, … for what is put in; None where it cannot be read.

    Read are constants, variables of the function, and parameters that callers in the same file
    fill. What may be None as well adds nothing.
    """
    if node is None or (isinstance(node, ast.Constant) and node.value is None):
        return []
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return _joined(call, node)
    if isinstance(node, ast.IfExp):
        return _all(call, [node.body, node.orelse])
    if isinstance(node, ast.BoolOp):
        return _all(call, node.values)
    if not isinstance(node, ast.Name):
        return None
    if values := call.values_of(node.id):
        return _all(call, values)
    if callers := call.callers_with(node.id):
        read = [texts(caller, value) for caller, value in callers]
        return [text for several in read for text in several or ()] if None not in read else None
    constant = call.constant(node.id)
    return None if constant is None else [constant]


def sentence(call: Call, node: ast.expr | None) -> str:
    """The longest text that an expression may be; nothing where all of it is made elsewhere.

    Of a variable that is used for one sentence after the other it is the last before the call.
    """
    if isinstance(node, ast.Name) and (values := call.values_of(node.id)):
        before = [value for value in values if value.lineno <= call.node.lineno]
        node = (before or values)[-1]
    read = texts(call, node) or []
    return max((text for text in read if text.strip(f"{MADE_UP} ")), key=len, default="")


@cache
def calls() -> Sequence[Call]:
    """Every call in the source."""
    return [
        call
        for path in sorted(SOURCE.rglob("*.py"))
        for call in _within(
            str(path.relative_to(SOURCE)), ast.parse(path.read_text(encoding="utf-8")), ()
        )
    ]


def parameters_of(function: Function) -> list[str]:
    """What a call may hand over by place, without `self`; then what it hands over by name."""
    by_place = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    by_name = [each.arg for each in function.args.kwonlyargs]
    return [name for name in by_place if name not in ("self", "cls")] + by_name


@cache
def module_of(file: str) -> Any:
    """The module of a file."""
    return importlib.import_module(f"allim.{file.removesuffix('.py').replace('/', '.')}")


def _within(
    file: str, node: ast.AST, around: tuple[ast.ClassDef | Function, ...]
) -> Iterator[Call]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield Call(file, child, around)
        inner = around
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = (*around, child)
        yield from _within(file, child, inner)


def _all(call: Call, nodes: Sequence[ast.expr]) -> list[str] | None:
    read = [texts(call, node) for node in nodes]
    if any(several is None for several in read):
        return None
    return [text for several in read for text in several or ()]


def _joined(call: Call, node: ast.JoinedStr) -> list[str] | None:
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        else:
            inner = part.value if isinstance(part, ast.FormattedValue) else None
            known = call.constant(inner.id) if isinstance(inner, ast.Name) else None
            parts.append(MADE_UP if known is None else known)
    return ["".join(parts)]
