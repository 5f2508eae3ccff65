"""Commands run in an empty directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import an_empty_directory


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory."""
    with an_empty_directory() as path:
        yield path
