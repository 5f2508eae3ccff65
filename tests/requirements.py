"""Programs and libraries that a test needs and a machine may lack.

Where they are missing a test is skipped with the reason; with `ALLIM_REQUIRE_ALL` set, as on
a machine that has to run everything, it fails instead.
"""

from __future__ import annotations

import importlib
import os
import shutil
from typing import Any, NoReturn

import pytest

REQUIRE_ALL = "ALLIM_REQUIRE_ALL"
_ADMIN_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def needs_program(*names: str) -> str:
    """The path of the first of these programs that is installed."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_ADMIN_PLACES])
    found = next((where for name in names if (where := shutil.which(name, path=path))), None)
    if found is None:
        _missing(f"{' or '.join(names)} is not installed")
    return found


def needs_module(name: str) -> Any:
    """The module of that name."""
    try:
        found = importlib.import_module(name)
    except ModuleNotFoundError as error:
        _missing(f"the library {error.name} is not installed")
    return found


def _missing(reason: str) -> NoReturn:
    if os.environ.get(REQUIRE_ALL):
        pytest.fail(f"{reason}, and {REQUIRE_ALL} is set")
    pytest.skip(reason)
