"""The scheduler of a program, and the jobs it can run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from allim.base.settings import Environment
from allim.composition.settings import RelaySettings
from allim.database.pool import Database
from allim.enrolment.calls import NOT_SET_UP
from allim.enrolment.dispatch import OutboxDispatch, RunPass
from allim.enrolment.dispatch_settings import DispatchSettings
from allim.enrolment.model import LockActive, SyncRequest, TriggerType
from allim.enrolment.scheduled import (
    DISPATCH_JOB,
    SYNC_JOB,
    DispatchParameters,
    SyncParameters,
)
from allim.enrolment.settings import EnrolmentSettings
from allim.enrolment.sync import EnrolmentSync
from allim.scheduler.fires import LEASE_SECONDS, FireLedger
from allim.scheduler.jobs import Job, JobEnded
from allim.scheduler.scheduler import Scheduler, SchedulerLimits

LANE = "scheduler"
"""What a wake calls the scheduler; never a channel's name, those are in capitals."""

LONGEST_LEASE = 300.0
"""Seconds. A fire is renewed at a third of its lease, as a sync's lock is: half as long again as
that lock's, it outlives it, and whoever takes the fire over finds the lock free. But it must end
well within the time in which it may be taken over."""


def make_scheduler(
    database: Database,
    environment: Environment,
    *,
    sync: EnrolmentSync | None,
    run_pass: RunPass,
    worker: str,
    wake: asyncio.Event,
) -> Scheduler:
    """The scheduler; `wake` is set when schedules were changed."""
    dispatch = OutboxDispatch(database, run_pass, environment.read(DispatchSettings))
    grace = environment.read(RelaySettings).allim_shutdown_seconds
    lock = environment.read(EnrolmentSettings).job_lock_seconds
    return Scheduler(
        FireLedger(database, worker, lease=min(max(LEASE_SECONDS, lock * 1.5), LONGEST_LEASE)),
        make_jobs(sync, dispatch),
        wake=wake,
        limits=SchedulerLimits(grace=grace),
    )


def make_jobs(sync: EnrolmentSync | None, dispatch: OutboxDispatch) -> Mapping[str, Job]:
    """Every job of JOB_KINDS, to be run."""

    async def run_sync(parameters: Mapping[str, Any]) -> JobEnded:
        if sync is None:
            return JobEnded(error=NOT_SET_UP)
        wanted = SyncParameters.model_validate(parameters)
        request = SyncRequest(
            category_id=wanted.category_id,
            trigger_type=TriggerType.SCHEDULER,
            max_users_per_course=wanted.max_users_per_course,
        )
        try:
            result = await sync.run(request)
        except LockActive as locked:
            return JobEnded(locked.run_id, error=locked.message, busy=True)
        return JobEnded(result.run_id, error=result.error)

    async def run_dispatch(parameters: Mapping[str, Any]) -> JobEnded:
        wanted = DispatchParameters.model_validate(parameters)
        await dispatch.chain(wanted.sheet_batch_size, wanted.notification_batch_size)
        return JobEnded()

    return {SYNC_JOB: run_sync, DISPATCH_JOB: run_dispatch}
