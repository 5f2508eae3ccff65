"""What some tests need of the machine: skipped with the reason where it is missing.

In CI (`CI=true`), where everything has to run, what is missing fails the test.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from typing import Any, NoReturn

import pytest

MUST_ALL_RUN = os.environ.get("CI") == "true"
_ADMIN_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def needs_program(*names: str) -> str:
    """The path of the first of these programs that is installed."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_ADMIN_PLACES])
    found = next((where for name in names if (where := shutil.which(name, path=path))), None)
    if found is None:
        _lacking(f"{' or '.join(names)} is not installed")
    return found


def needs_module(name: str) -> Any:
    """The module of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        _lacking(f"the library {error.name} is not installed")


def needs_korean_font() -> None:
    """A font that draws Korean."""
    fonts = subprocess.run(
        [needs_program("fc-list"), ":lang=ko", "family"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    ).stdout
    if not fonts.strip():
        _lacking("there is no Korean font")


def _lacking(reason: str) -> NoReturn:
    if MUST_ALL_RUN:
        pytest.fail(f"{reason}, and in CI every test must run: make system", pytrace=False)
    pytest.skip(f"{reason}: make system")
