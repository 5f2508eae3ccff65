"""Sending the alert chain when somebody asks: one pass over the sheet, one over Kakao.

For whoever runs no relay, and has a scheduler of their own call the endpoints. Beside a relay a
pass finds what that has left, which is mostly nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import BaseModel, Field

from allim.channels.kakao import NAME as KAKAO
from allim.channels.sheet import NAME as SHEET
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.enrolment.dispatch_settings import DispatchSettings
from allim.hub.settling import array_literal
from allim.relay.single_pass import PassFigures
from allim.web.problems import Refused

SQL = Statements.load("allim.enrolment", "dispatch.sql")


class DispatchSummary(BaseModel):
    """What one pass did."""

    claimed: int = Field(description="Taken from the outbox")
    sent: int = Field(description="Delivered, or passed without a call where none is configured")
    failed: int = Field(description="Failed, and to be tried again")
    dead: int = Field(description="Failed for good, or kept for an operator")
    created: int = Field(description="Notices that followed the rows sent")


@dataclass(frozen=True, slots=True)
class ChainSummary:
    """What a pass over both did."""

    sheet: DispatchSummary
    notification: DispatchSummary


RunPass: TypeAlias = Callable[[str, int], Awaitable[PassFigures]]
"""Makes one pass over a channel, of as many deliveries as the number says; see relay.single_pass.

Raises DatabaseUnavailable.
"""


async def no_passes(channel: str, limit: int) -> PassFigures:
    """The `RunPass` of a program that cannot deliver."""
    raise Refused(503, "not_set_up", "this server was started without anything to send with")


class OutboxDispatch:
    """Sends what waits for the sheet and for Kakao. Batch sizes default to the settings."""

    def __init__(self, database: Database, run_pass: RunPass, settings: DispatchSettings) -> None:
        self._database = database
        self._run_pass = run_pass
        self._settings = settings

    async def sheet(self, batch_size: int | None = None) -> DispatchSummary:
        """One pass over the sheet's rows. Raises DatabaseUnavailable."""
        limit = batch_size or self._settings.sheet_dispatch_batch_size
        figures = await self._run_pass(SHEET, limit)
        return _summary(figures, created=await self._born(figures.completed))

    async def notification(self, batch_size: int | None = None) -> DispatchSummary:
        """One pass over Kakao's notices. Raises DatabaseUnavailable."""
        limit = batch_size or self._settings.noti_dispatch_batch_size
        return _summary(await self._run_pass(KAKAO, limit), created=0)

    async def chain(
        self,
        sheet_batch_size: int | None = None,
        notification_batch_size: int | None = None,
    ) -> ChainSummary:
        """The sheet first, then Kakao with what followed. Raises DatabaseUnavailable."""
        sheet = await self.sheet(sheet_batch_size)
        return ChainSummary(sheet, await self.notification(notification_batch_size))

    async def _born(self, parents: Collection[int]) -> int:
        if not parents:
            return 0
        rows = await self._database.fetch(
            SQL["born"], {"parents": array_literal(sorted(parents)), "channel": KAKAO}
        )
        return int(rows[0][0])


def _summary(figures: PassFigures, *, created: int) -> DispatchSummary:
    return DispatchSummary(
        claimed=figures.claimed,
        sent=figures.sent,
        failed=figures.failed,
        dead=figures.dead,
        created=created,
    )
