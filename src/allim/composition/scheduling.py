"""The scheduler of a program, and the jobs it can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from allim.composition.delivering import make_passes
from allim.composition.foundation import Foundation
from allim.composition.parts import Part
from allim.composition.settings import RelaySettings
from allim.enrolment.calls import NOT_SET_UP
from allim.enrolment.dispatch import OutboxDispatch
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


def scheduling(base: Foundation, sync: EnrolmentSync | None) -> Part:
    """The scheduler; wakes of LANE tell it that schedules were changed."""
    settings = base.environment.read(DispatchSettings)
    lock = base.environment.read(EnrolmentSettings).job_lock_seconds
    lease = min(max(LEASE_SECONDS, lock * 1.5), LONGEST_LEASE)
    scheduler = Scheduler(
        FireLedger(base.database, base.worker, lease=lease),
        make_jobs(sync, OutboxDispatch(base.database, make_passes(base), settings)),
        wake=base.signal.event(LANE),
        limits=SchedulerLimits(grace=base.environment.read(RelaySettings).allim_shutdown_seconds),
    )
    return Part(scheduler.run, scheduler.stop)


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
