"""Where the console is reached, and how long a login lasts."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from allim.base.settings import SettingsGroup

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")


class ConsoleSettings(SettingsGroup):
    """The operators' console."""

    allim_root_path: str = Field(
        "",
        description="The path under which a reverse proxy serves Allim, as `/allim`; the proxy"
        " takes it off before it passes a request on.",
    )
    allim_console_session_hours: float = Field(
        12.0, gt=0, le=720, description="How long a login to the console lasts."
    )

    @field_validator("allim_root_path")
    @classmethod
    def _is_prefix(cls, value: str) -> str:
        value = value.rstrip("/")
        if not _PREFIX.fullmatch(value):
            raise ValueError("must be a path such as /allim")
        return value
