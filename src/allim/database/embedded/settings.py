"""Where the embedded server keeps its data."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from allim.base.settings import SettingsGroup


class EmbeddedSettings(SettingsGroup):
    """`ALLIM_HOME`: the directory of this project's database and its locks."""

    allim_home: Path = Field(
        Path("./.allim"),
        description="The directory of the embedded database, used where DATABASE_URL is not set.",
    )
