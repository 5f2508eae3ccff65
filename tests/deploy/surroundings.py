"""What the files of deploy/ may name: settings, commands; and how those are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml  # type: ignore[import-untyped]

from allim.cli.commands import app as commands
from allim.composition.settings import settings_groups

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def loaded(path: Path) -> Any:
    """The one document of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def documents(text: str) -> Sequence[Any]:
    """Every document of a YAML stream."""
    return list(yaml.safe_load_all(text))


def as_yaml(value: object) -> str:
    """A document as YAML."""
    written: str = yaml.safe_dump(value)
    return written


def settings() -> frozenset[str]:
    """The name of every setting."""
    return frozenset(name.upper() for group in settings_groups() for name in group.model_fields)


def variables(path: Path) -> Mapping[str, str]:
    """What a file of variables sets."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line.strip() and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def is_command(arguments: Sequence[str]) -> bool:
    """Whether `allim` followed by these is a command that needs nothing more."""
    command: Any = typer.main.get_command(commands)
    for word in arguments:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            return False
    return not hasattr(command, "commands") and not any(
        parameter.required for parameter in command.params
    )


def within(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping in a document, at any depth."""
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from within(inner)
