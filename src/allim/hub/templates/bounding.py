"""Rewriting a template's syntax tree: what cannot be used is refused, the rest is counted."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

_REFUSED = {
    nodes.Extends: "extends",
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from … import",
    nodes.Block: "block",
}


def bounded(tree: nodes.Template) -> nodes.Template:
    """The tree with counters in it. Raises TemplateSyntaxError."""
    for kind, word in _REFUSED.items():
        for found in tree.find_all(kind):
            raise TemplateSyntaxError(f"«{word}» cannot be used here", found.lineno)
    counted: nodes.Template = _Bounding().visit(tree)
    counted.set_environment(tree.environment)  # type: ignore[arg-type]
    return counted


def weights_of(tree: nodes.Template) -> Mapping[str, int]:
    """How many characters of its own each macro may write in a call, by its name."""
    weights: dict[str, int] = {"caller": _weight(tree)}
    for macro in tree.find_all(nodes.Macro):
        weights[macro.name] = max(_weight(macro), weights.get(macro.name, 0))
    return weights


def _weight(node: nodes.Node) -> int:
    return sum(len(text.data) for text in node.find_all(nodes.TemplateData))


class _Bounding(NodeTransformer):
    """Puts counters into loops, and checks where texts are joined."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        """Every turn is a step."""
        if node.recursive:
            raise TemplateSyntaxError("«recursive» loops cannot be used here", node.lineno)
        weight = nodes.Const(_weight(node), lineno=node.lineno)
        self.generic_visit(node)
        node.iter = _filter(node.iter, "budgeted", [weight])
        return node

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.CondExpr:  # noqa: N802
        """`a if b` without an `else` is nothing, not something undefined."""
        if node.expr2 is None:
            node.expr2 = nodes.Const("", lineno=node.lineno)
        self.generic_visit(node)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802
        """`{{ "," if not loop.last }}`: the comma is the template's own."""
        self.generic_visit(node)
        node.nodes = [_owned(child) for child in node.nodes]
        return node

    def visit_List(self, node: nodes.List) -> nodes.Filter:  # noqa: N802
        """`[x, x]` holds x twice."""
        self.generic_visit(node)
        return _filter(node, "weighed", [])

    def visit_Dict(self, node: nodes.Dict) -> nodes.Filter:  # noqa: N802
        """The same of `{"a": x, "b": x}`."""
        self.generic_visit(node)
        return _filter(node, "weighed", [])

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802
        """The same of `(x, x)`, where it is no list of names."""
        self.generic_visit(node)
        return _filter(node, "weighed", []) if node.ctx == "load" else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Filter:  # noqa: N802
        """`a in b` and `a == b` look through all of both."""
        self.generic_visit(node)
        return _filter(node, "counted", [])

    def visit_Test(self, node: nodes.Test) -> nodes.Filter:  # noqa: N802
        """The same of `a is in(b)`."""
        self.generic_visit(node)
        return _filter(node, "counted", [])

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        """`a[1:]` is another text or list."""
        self.generic_visit(node)
        return _filter(node, "counted", []) if isinstance(node.arg, nodes.Slice) else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        """`a ~ b` makes a text as long as both."""
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "concatenated", [])


def _owned(node: nodes.Expr) -> nodes.Expr:
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return _filter(node, "own", [])
    if isinstance(node, nodes.CondExpr) and node.expr2 is not None:
        node.expr1, node.expr2 = _owned(node.expr1), _owned(node.expr2)
    return node


def _filter(node: nodes.Node, name: str, arguments: list[nodes.Expr]) -> nodes.Filter:
    return nodes.Filter(node, name, arguments, [], None, None, lineno=node.lineno)
