"""Where the embedded server keeps its data."""

from __future__ import annotations

from pathlib import Path

from allim.base.settings import SettingsGroup


class EmbeddedSettings(SettingsGroup):
    """`ALLIM_HOME`: the directory of this project's database and its locks."""

    allim_home: Path = Path("./.allim")
