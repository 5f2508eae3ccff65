"""What programs stand on, for tests: a whole foundation, or the channels alone."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from allim.base.logging import LogWriter, json_line
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.channels.registry import close_channels, make_channels, make_http, make_services
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


@asynccontextmanager
async def open_channels(environment: Environment) -> AsyncIterator[Mapping[str, Channel]]:
    """Every channel as these settings have it, without a database; what a mock prints is lost."""
    http = make_http(environment)
    channels = make_channels(environment, make_services(http, print_line=lambda _line: None))
    try:
        yield channels
    finally:
        await close_channels(channels)
        await http.close()
