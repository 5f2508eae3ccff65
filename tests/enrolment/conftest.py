"""A sync over an LMS in memory, with the real channels of the chain on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString

import pytest

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.enrolment.model import SyncRequest, SyncResult
from allim.enrolment.settings import EnrolmentSettings
from allim.enrolment.sync import EnrolmentSync
from allim.testing.lms.memory import MemoryLms
from tests.foundations import open_channels

CATEGORY = 303


@pytest.fixture
async def channels() -> AsyncIterator[Mapping[str, Channel]]:
    """Every channel, none of which is configured."""
    async with open_channels(Environment({})) as channels:
        yield channels


@dataclass
class Academy:
    """An LMS, a sync over it, and what that wrote."""

    database: Database
    lms: MemoryLms
    channels: Mapping[str, Channel]
    settings: EnrolmentSettings = field(
        default_factory=lambda: Environment({}).read(EnrolmentSettings)
    )
    woken: list[set[str]] = field(default_factory=list)

    def service(self) -> EnrolmentSync:
        return EnrolmentSync(
            self.database, self.lms, self.channels, self.settings, on_commit=self.woken.append
        )

    async def sync(self, category: int = CATEGORY, **request: Any) -> SyncResult:
        return await self.service().run(SyncRequest(category_id=category, **request))

    async def rows(self, statement: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        async with self.database.connection() as connection:
            return await (await connection.execute(statement, parameters)).fetchall()

    async def alerts(self) -> list[tuple[Any, ...]]:
        """Type, severity, source and revision of every alert, as they were told."""
        return await self.rows(
            "SELECT alert_type, severity, source_id, revision FROM alert ORDER BY id"
        )

    async def messages(self, since: int = 0) -> list[str]:
        """What operators were told, beginning after so many alerts."""
        found = await self.rows("SELECT message FROM alert ORDER BY id OFFSET %s", since)
        return [row[0] for row in found]


Open = Callable[..., Academy]


@pytest.fixture
def academy(database: Database, channels: Mapping[str, Channel]) -> Academy:
    """An academy with one course of two students."""
    lms = MemoryLms()
    lms.names["447"] = "파이썬 입문"
    lms.enrol(CATEGORY, "447", "kim01", {"status": "SJC", "statusmsg": "결제대기"}, name="김민수")
    lms.enrol(CATEGORY, "447", "lee02", {"status": "DS", "statusmsg": "대기"}, name="이영희")
    return Academy(database, lms, channels)
