"""How commands print: nothing that somebody else wrote commands the operator's terminal."""

from __future__ import annotations

import typer

from allim.base.visible import visible, visible_json, visible_lines


def echo(line: object = "", *, err: bool = False, mark: str = "") -> None:
    """Print one line; `mark` is our own, and may be coloured."""
    typer.echo(mark + visible(str(line)), err=err)


def echo_lines(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print several lines."""
    typer.echo(visible_lines(text), err=err, nl=nl)


def echo_json(text: str) -> None:
    """Print JSON, the very value."""
    typer.echo(visible_json(text))
