"""Writes the generated pages of docs/reference; with --check, says which are out of date.

`--database URL` names a migrated database whose tables are described; without it one is made.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from allim.app import api_document, create_app
from allim.base.logging import LogWriter, json_line
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.channels.registry import make_channels, make_http, make_services
from allim.composition.watching import Watch
from allim.database.embedded import EmbeddedServer
from allim.database.migrate import migrate
from allim.database.pool import Database
from scripts.reference.commands import cli_page
from scripts.reference.database import database_page
from scripts.reference.errors import errors_page
from scripts.reference.http import http_page
from scripts.reference.metrics import metrics_page
from scripts.reference.page import REFERENCE, ROOT
from scripts.reference.settings import settings_page
from scripts.reference.statuses import statuses_page

NOWHERE = "postgresql://nobody@localhost/nothing"


async def program() -> tuple[Mapping[str, Channel], dict[str, Any], CollectorRegistry]:
    """An Allim without a setting: its channels, its OpenAPI document, its metrics."""
    environment = Environment({})
    http = make_http(environment)
    channels = make_channels(environment, make_services(http))
    database = Database(NOWHERE)
    app = create_app(database, channels, environment)
    watch = Watch(database, channels, LogWriter(json_line, sys.stderr, 100), "reference")
    watch.observer("worker")
    watch.event_observer()
    await http.close()
    return channels, api_document(app), watch.registry


def pages(url: str) -> dict[Path, str]:
    """All pages by where they belong."""
    channels, openapi, registry = asyncio.run(program())
    return {
        REFERENCE / "settings.md": settings_page(channels),
        REFERENCE / "cli.md": cli_page(),
        REFERENCE / "http-api.md": http_page(openapi),
        REFERENCE / "metrics.md": metrics_page(registry),
        REFERENCE / "errors.md": errors_page(),
        REFERENCE / "statuses.md": statuses_page(),
        REFERENCE / "database.md": database_page(url),
    }


@contextmanager
def a_database(url: str | None) -> Iterator[str]:
    """The database that was named, else an embedded one that is thrown away."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="allim-reference-") as name:
        Path(name).chmod(0o755)
        server = EmbeddedServer.open(Path(name) / "home")
        try:
            migrate(server.url)
            yield server.url
        finally:
            server.close()


def main() -> None:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(prog="python -m scripts.reference")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--database", metavar="URL")
    asked = parser.parse_args()
    stale = []
    with a_database(asked.database) as url:
        written = pages(url)
    for path, text in written.items():
        text = text.rstrip() + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not asked.check:
            path.write_text(text, encoding="utf-8")
    if asked.check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run `make docs`")


if __name__ == "__main__":
    main()
