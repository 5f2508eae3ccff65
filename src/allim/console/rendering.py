"""Templates: what every page is rendered with, whole or only the part that changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic_core import to_json

from allim.console.durations import duration, lateness
from allim.hub.redaction import shown


class Templates:
    """The templates of the package. Everything is escaped; what is not there is an error."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("allim.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {
            "utc": _utc,
            "iso": _iso,
            "thousands": _thousands,
            "json": _json,
            "recipient": shown,
            "duration": duration,
            "lateness": lateness,
        }

    def render(self, name: str, context: Mapping[str, Any], block: str | None = None) -> str:
        """The page, or only its block of that name, if it has one."""
        template = self._environment.get_template(name)
        # Macros see what the page sees, and so do blocks that are rendered alone.
        ui = self._environment.get_template("ui.html").make_module(dict(context))
        whole = {**context, "ui": ui}
        if block is None or block not in template.blocks:
            return template.render(whole)
        return "".join(template.blocks[block](template.new_context(whole)))


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _thousands(number: float) -> str:
    return f"{number:,}"


def _json(value: object) -> str:
    return to_json(value, indent=2, fallback=str).decode("utf-8", "replace")
