"""The record of fires: claimed once, kept by a lease, settled by whoever holds it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.scheduler.slots import WINDOW, DueSlots

SQL = Statements.load("allim.scheduler", "fires.sql")

LEASE_SECONDS = 60.0
"""How long a fire is held by a process that may have died."""
ATTEMPTS = 3
"""How often a fire is begun before it counts as what kills its process."""
KEEP_DAYS = 30
PRUNE_BATCH = 1000
ERROR_LENGTH = 2000


class FireStatus(StrEnum):
    """Where a fire stands."""

    QUEUED = "QUEUED"
    """Asked for, and not begun yet."""
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    """Its slot came while the fire before it was still running."""
    MISSED = "MISSED"
    """Nobody came to it in time."""


@dataclass(frozen=True, slots=True)
class Armed:
    """A schedule that fires, as it was read."""

    id: int
    name: str
    job: str
    cron: str
    timezone: str
    decided_until: datetime


@dataclass(frozen=True, slots=True)
class Fire:
    """A fire that this process runs, for as long as its lease holds."""

    id: int
    token: UUID
    schedule: str
    job: str
    parameters: Mapping[str, Any]
    due_at: datetime
    attempts: int


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A fire that nobody will run any more."""

    schedule: str
    due_at: datetime
    status: FireStatus
    error: str


class FireLedger:
    """Claims and settles fires for one worker. All times are the database's."""

    def __init__(self, database: Database, worker: str, *, lease: float = LEASE_SECONDS) -> None:
        self.worker = worker
        self.lease = lease
        self._database = database

    async def read(self) -> tuple[datetime, Sequence[Armed]]:
        """What time it is, and every enabled schedule."""
        rows = await self._database.fetch(SQL["read_enabled"])
        return rows[0][0], [Armed(*row[1:]) for row in rows if row[1] is not None]

    async def claim(self, armed: Armed, due: DueSlots, now: datetime) -> Fire | FireStatus | None:
        """Decide the slots that are due: the fire, if it is ours to run.

        SKIPPED where the one before still runs, MISSED where nothing of it fires; None where
        another process was first, or the schedule was changed.
        """
        async with self._database.transaction() as tx:
            found = await (
                await tx.execute(
                    SQL["lock_undecided"],
                    {
                        "id": armed.id,
                        "cron": armed.cron,
                        "timezone": armed.timezone,
                        "decided_until": armed.decided_until,
                    },
                )
            ).fetchone()
            if found is None:
                return None
            job, parameters = found
            slot = {"id": armed.id, "worker": self.worker, "lease": self.lease}
            if due.missed is not None:
                missed = {"due_at": due.missed.first, "error": str(due.missed)}
                await tx.execute(
                    SQL["insert_ended"], {**slot, **missed, "status": FireStatus.MISSED}
                )
            await tx.execute(SQL["decide"], {"id": armed.id, "until": due.fire or now})
            if due.fire is None:
                return FireStatus.MISSED
            running = await (await tx.execute(SQL["open_fire"], {"id": armed.id})).fetchone()
            if running is not None:
                skipped = {"due_at": due.fire, "error": _still_open(*running)}
                await tx.execute(
                    SQL["insert_ended"], {**slot, **skipped, "status": FireStatus.SKIPPED}
                )
                return FireStatus.SKIPPED
            claimed = await (
                await tx.execute(SQL["insert_running"], {**slot, "due_at": due.fire})
            ).fetchone()
        if claimed is None:
            return None
        return Fire(claimed[0], claimed[1], armed.name, job, parameters, due.fire, 1)

    async def take_over(self, jobs: Collection[str], *, limit: int) -> Sequence[Fire]:
        """Claim what was asked for, and what processes that ended left behind."""
        rows = await self._database.fetch(
            SQL["take_over"],
            {"jobs": list(jobs), "limit": limit, "worker": self.worker, "lease": self.lease},
        )
        return [
            Fire(id_, token, name, job, parameters, due_at, attempts)
            for id_, token, due_at, attempts, name, job, parameters in rows
        ]

    async def give_up(self) -> Sequence[GivenUp]:
        """End what can no longer be taken over."""
        rows = await self._database.fetch(
            SQL["give_up"], {"attempts": ATTEMPTS, "window": WINDOW.total_seconds()}
        )
        return [GivenUp(row[0], row[1], FireStatus(row[2]), row[3]) for row in rows]

    async def renew(self, fire: Fire) -> bool:
        """Hold a fire for another lease; False where it was taken over."""
        return await self._own("renew", fire, lease=self.lease)

    async def settle(
        self, fire: Fire, status: FireStatus, *, error: str | None = None, run_id: int | None = None
    ) -> bool:
        """Record how a fire ended; False where it was taken over, or its schedule removed."""
        return await self._own("settle", fire, status=status, error=_storable(error), run_id=run_id)

    async def give_back(self, fire: Fire, error: str) -> bool:
        """Let a fire be taken over at once; False where it has been."""
        return await self._own(
            "give_back", fire, error=_storable(error), seconds=0.0, refused=False
        )

    async def put_off(self, fire: Fire, error: str, *, seconds: float) -> bool:
        """Let a fire that was refused be tried again in a while; False where it was taken over."""
        return await self._own(
            "give_back", fire, error=_storable(error), seconds=seconds, refused=True
        )

    async def prune(self) -> int:
        """Forget a batch of old fires; how many."""
        return len(
            await self._database.fetch(SQL["prune"], {"days": KEEP_DAYS, "limit": PRUNE_BATCH})
        )

    async def _own(self, statement: str, fire: Fire, **more: Any) -> bool:
        rows = await self._database.fetch(
            SQL[statement], {"id": fire.id, "token": fire.token, **more}
        )
        return bool(rows)


def _still_open(due_at: datetime, status: str, worker: str | None) -> str:
    if status == FireStatus.QUEUED:
        return "one that was asked for waits to be run"
    due = due_at.astimezone(UTC)
    return f"still running: what was due at {due:%Y-%m-%d %H:%M:%S%z}, by {worker}"


def _storable(error: str | None) -> str | None:
    if error is None:
        return None
    return error.replace("\x00", "�").encode("utf-8", "replace").decode()[:ERROR_LENGTH]
