"""What some tests need of the machine: skipped without it, but never where all must run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRE_ALL = "ALLIM_REQUIRE_ALL"
"""Set in CI: what is missing fails the test then."""


def lacking(reason: str) -> NoReturn:
    """End the test: it cannot run here."""
    if os.environ.get(REQUIRE_ALL):
        pytest.fail(f"{reason}, and {REQUIRE_ALL} is set", pytrace=False)
    pytest.skip(reason)


def program(*paths: str, package: str) -> Path:
    """The first of these programs that is there; `package` is the Debian package that has it."""
    for path in paths:
        if Path(path).is_file():
            return Path(path)
    lacking(f"none of {', '.join(paths)} is here (Debian package {package})")


def korean_font() -> None:
    """End the test unless a font for Korean is installed."""
    try:
        fonts = subprocess.run(
            ["fc-list", ":lang=ko", "family"], capture_output=True, text=True, timeout=30
        ).stdout
    except OSError:
        lacking("fc-list is not here (Debian package fontconfig)")
    if not fonts.strip():
        lacking("there is no Korean font (Debian package fonts-nanum)")
