"""The engine on a real database."""

from __future__ import annotations

import pytest

from allim.database.pool import Database
from tests.hub.engine.harness import DatabaseHarness


@pytest.fixture
def harness(database: Database) -> DatabaseHarness:
    """Deliveries in a fresh database."""
    return DatabaseHarness(database)
