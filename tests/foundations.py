"""The foundation of a program over a test's own database."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from allim.base.logging import LogWriter, json_line
from allim.base.settings import Environment
from allim.composition.foundation import Foundation, foundation
from allim.composition.opening import Store
from allim.database.pool import Database


@asynccontextmanager
async def a_foundation(
    database: Database, settings: Mapping[str, str]
) -> AsyncIterator[Foundation]:
    """Everything that a program stands on, with these settings and no others."""
    writer = LogWriter(json_line, io.StringIO(), logging.CRITICAL)
    async with foundation(Store(database.url), Environment(settings), writer, "test") as base:
        yield base
