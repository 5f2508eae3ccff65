"""Writes the generated pages of docs/reference; with --check, says which are out of date."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from allim.app import create_app
from allim.base.logging import LogWriter, json_line
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.channels.registry import make_channels, make_http, make_services
from allim.channels.sending import CALL_GRACE
from allim.cli.commands import app as commands
from allim.composition.settings import settings_groups
from allim.composition.watching import Watch
from allim.database.pool import Database
from allim.hub.routes import CREATE_OPERATION, create_schemas
from allim.web.documentation import document

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("get", "post", "put", "patch", "delete")
GENERATED = "<!-- Written by `make docs`; change the code, not this page. -->\n"


def settings_page(channels: Mapping[str, Channel]) -> str:
    """Every setting, group by group."""
    own = _channel_defaults(channels)
    lines = [
        "# Settings\n",
        GENERATED,
        "Read from the environment, and from `.env` in the working directory where the environment"
        " says nothing. An empty value counts as not set. An unknown `ALLIM_*` name or a value that"
        " cannot be stops the start, naming everything that is wrong at once.\n",
    ]
    for group in settings_groups():
        title = (group.__doc__ or group.__name__).strip().splitlines()[0].rstrip(".")
        title = re.sub(r"^`\w+`: ", "", title)
        lines += [
            f"## {title[0].upper()}{title[1:]}\n",
            "| variable | default | |",
            "| --- | --- | --- |",
        ]
        for name, field in group.model_fields.items():
            words = (field.description or "").replace("|", "\\|")
            lines.append(f"| `{name.upper()}` | {own.get(name) or _default(field)} | {words} |")
        lines.append("")
    return "\n".join(lines)


def _channel_defaults(channels: Mapping[str, Channel]) -> dict[str, str]:
    """What stands in a channel's own code where its settings say nothing."""
    defaults = {}
    for name, channel in channels.items():
        limits, prefix = channel.limits, name.lower()
        per_second = limits.rate.per_second if limits.rate is not None else 0.0
        defaults |= {
            f"{prefix}_concurrency": f"`{limits.concurrency}`",
            f"{prefix}_max_attempts": f"`{limits.retry.attempts}`",
            f"{prefix}_retry_base_seconds": "`OUTBOX_RETRY_BASE_SECONDS`",
            f"{prefix}_retry_max_seconds": "`OUTBOX_RETRY_MAX_SECONDS`",
            f"{prefix}_at_most_once": f"`{str(limits.at_most_once).lower()}`",
            f"{prefix}_timeout_seconds": f"`{limits.call_timeout - CALL_GRACE:g}`",
            f"{prefix}_rate_per_second": f"`{per_second:g}`",
        }
    return defaults


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value == () or isinstance(value, SecretStr):
        return "not set"
    if isinstance(value, float):
        value = f"{value:g}"
    return f"`{value}`"


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
        if hasattr(command, "commands"):
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


def http_page(openapi: dict[str, Any]) -> str:
    """Every route."""
    lines = [
        "# HTTP API\n",
        GENERATED,
        "The whole of it, with every field, is at `/docs` of a running Allim (OpenAPI at"
        " `/openapi.json`). Errors are `application/problem+json` (RFC 9457) with a stable `code`"
        " and, in `errors`, every wrong field with its place. Listings take `limit` (≤ 250) and"
        ' `cursor`, and answer `{"items": […], "next": …}`. Bodies are JSON of 256 KiB at most'
        " (bulk: more, see there).\n",
        "| route | does |",
        "| --- | --- |",
    ]
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            if method in METHODS:
                summary = str(operation.get("summary", "")).replace("|", "\\|")
                lines.append(f"| `{method.upper()} {path}` | {summary} |")
    return "\n".join(lines) + "\n"


def metrics_page(registry: CollectorRegistry) -> str:
    """Every metric of ours."""
    lines = [
        "# Metrics\n",
        GENERATED,
        "At `/metrics` of `allim up` and `allim api` (scope `read` once a key exists), and of a"
        " lone `allim relay` where `ALLIM_RELAY_METRICS_PORT` is set. Beside these there are the"
        " usual `process_…` and `python_…`.\n",
        "The backlog (`allim_waiting`, `allim_failed`, `allim_dead`, `allim_oldest_due_seconds`)"
        " is read from the database every 10 s while somebody scrapes; it is the same in every"
        " process, so take `max` and not `sum`. All else is this process's own. **The one to alert"
        " on is `allim_oldest_due_seconds`**: it rises whatever the cause.\n",
        "| metric | kind | labels | |",
        "| --- | --- | --- | --- |",
    ]
    for metric in registry.collect():
        if metric.name.startswith("allim_"):
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            labels = ", ".join(getattr(metric, "_labelnames", ()))
            lines.append(f"| `{name}` | {metric.type} | {labels} | {metric.documentation} |")
    return "\n".join(lines) + "\n"


async def pages() -> dict[Path, str]:
    """All pages by where they belong."""
    environment = Environment({})
    http = make_http(environment)
    channels = make_channels(environment, make_services(http))
    database = Database("postgresql://nobody@localhost/nothing")
    app = create_app(database, channels, environment)
    watch = Watch(database, channels, LogWriter(json_line, sys.stderr, 100), "reference")
    watch.observer("worker")
    await http.close()
    by_hand = {"/notifications": {"post": CREATE_OPERATION}}
    openapi = document(app, by_hand, create_schemas())
    where = ROOT / "docs" / "reference"
    return {
        where / "settings.md": settings_page(channels),
        where / "cli.md": cli_page(),
        where / "http-api.md": http_page(openapi),
        where / "metrics.md": metrics_page(watch.registry),
    }


def main() -> None:
    """Write the pages, or check them."""
    check = sys.argv[1:] == ["--check"]
    stale = []
    for path, text in asyncio.run(pages()).items():
        text = text.rstrip() + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run `make docs`")


if __name__ == "__main__":
    main()
