"""The page of commands: what typer was told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from allim.cli.commands import app as commands
from scripts.reference.page import GENERATED


def cli_page() -> str:
    """Every command with its options."""
    lines = [
        "# Commands\n",
        GENERATED,
        "Exit codes: 0 for success, 2 for settings and usage, 128 + n where signal n came before"
        " the start was over, 1 for everything else. Answers go to stdout, logs and errors to"
        " stderr.\n",
    ]
    root = typer.main.get_command(commands)
    for path, command in _commands("allim", root):
        # A group is a command, too, where it does something by itself.
        if hasattr(command, "commands") and not command.invoke_without_command:
            continue
        usage = [path]
        options = []
        for parameter in command.params:
            kind = parameter.param_type_name
            if kind == "argument":
                name = str(parameter.metavar or parameter.name).upper()
                usage.append(f"[{name}]" if not parameter.required else name)
                options.append(f"- `{name}`: {parameter.help or ''}")
            elif "--help" not in parameter.opts:
                options.append(f"- `{'`, `'.join(parameter.opts)}`: {parameter.help or ''}")
        lines += [f"## `{' '.join(usage)}`\n", _unwrapped(command.help or ""), ""]
        lines += [re.sub(r"\s+", " ", option).rstrip(": ") for option in options]
        lines += [""] if options else []
    return "\n".join(lines)


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(f"{path} {name}", child)


def _unwrapped(text: str) -> str:
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(re.sub(r"\s*\n\s*", " ", paragraph) for paragraph in paragraphs)
