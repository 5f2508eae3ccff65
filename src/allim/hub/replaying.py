"""Does the steps of replay jobs, in any number of relays at once."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass

from allim.base.errors import Conflict, DatabaseUnavailable, NotFound
from allim.database.pool import Connection, Database
from allim.hub.coalescer import OnCommit
from allim.hub.operations import AS_NEW, send_again
from allim.hub.replays import LANE, SQL, ReplayFilter, parameters_of, statement
from allim.relay.wake import WakeSignal

log = logging.getLogger("allim.hub.replaying")

STEP = 500
"""Deliveries that one step sends again at most."""
STEP_SECONDS = 1.0
"""How long a rated job's step lasts: its rate times this is sent at once."""
IDLE_SECONDS = 5.0
FAULT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did; `ended` when its job has nothing more to look at."""

    job: int
    replayed: int
    skipped: int
    ended: bool


class ReplayRunner:
    """Does whatever step is due, one transaction each.

    The job's progress is written by the transaction that sends its deliveries again: a
    process that is killed in a step has done all of it or none, and any other goes on.
    """

    def __init__(self, database: Database, signal: WakeSignal, on_commit: OnCommit) -> None:
        self._database = database
        self._signal = signal
        self._on_commit = on_commit

    async def run(self) -> None:
        """Do steps until cancelled."""
        woken = self._signal.event(LANE)
        while True:
            woken.clear()
            try:
                if await self.step() is not None:
                    await asyncio.sleep(0)
                    continue
                wait = await self._next_step_in()
            except DatabaseUnavailable as error:
                log.warning("no replay step: %s", error)
                wait = FAULT_SECONDS
            except Exception:
                # The runner's own boundary: a step that fails was rolled back, and is tried again.
                log.exception("a replay step failed")
                await asyncio.sleep(FAULT_SECONDS)
                continue
            try:
                async with asyncio.timeout(wait):
                    await woken.wait()
            except TimeoutError:
                pass

    async def step(self) -> Step | None:
        """Do one step of the job whose turn it is; None where none is due."""
        async with self._database.transaction() as tx:
            row = await (await tx.execute(SQL["take"])).fetchone()
            if row is None:
                return None
            step, lanes = await _do(tx, *row)
        if lanes:
            self._on_commit(lanes)
        if step.ended:
            log.info("replay %d has ended", step.job)
        return step

    async def _next_step_in(self) -> float:
        rows = await self._database.fetch(SQL["next_step_in"])
        # A step that is due was just being done by somebody else.
        return min(max(rows[0][0], 0.05), IDLE_SECONDS) if rows else IDLE_SECONDS


async def _do(
    tx: Connection,
    job: int,
    tenant: int | None,
    wanted: dict[str, object],
    statuses: list[str],
    channels: list[str],
    last_id: int,
    up_to: int,
    rate: float | None,
) -> tuple[Step, set[str]]:
    limit = STEP if rate is None else min(max(math.floor(rate * STEP_SECONDS), 1), STEP)
    found = await (
        await tx.execute(
            statement("next"),
            {
                **parameters_of(ReplayFilter.model_validate(wanted, strict=False), tenant),
                "statuses": statuses,
                "channels": channels,
                "last_id": last_id,
                "up_to": up_to,
                "limit": limit,
            },
        )
    ).fetchall()
    await tx.execute(
        SQL["lock_notifications"], {"ids": sorted({notification for _, notification, _ in found})}
    )
    alone = [delivery for delivery, _, is_alone in found if is_alone]
    rows = await (
        await tx.execute(
            SQL["send_again"].replace("{as_new}", AS_NEW), {"ids": alone, "statuses": statuses}
        )
    ).fetchall()
    lanes = [channel for (channel,) in rows]
    for delivery, _, is_alone in found:
        if is_alone:
            continue
        try:
            lanes.append(await send_again(tx, delivery))
        except (Conflict, NotFound) as reason:
            log.info("replay %d passes over %d: %s", job, delivery, reason)
    replayed, skipped, ended = len(lanes), len(found) - len(lanes), len(found) < limit
    await tx.execute(
        SQL["advance"],
        {
            "id": job,
            "last_id": found[-1][0] if found else last_id,
            "replayed": replayed,
            "skipped": skipped,
            "pause": 0.0 if rate is None else len(found) / rate,
            "ended": ended,
        },
    )
    return Step(job, replayed, skipped, ended), set(lanes)
