"""The enrolment sync of a program, where an LMS is set up."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.composition.enrolling import make_enrolment_sync
from allim.composition.foundation import Foundation
from allim.database.pool import Database
from allim.enrolment.lms.making import lms_is_set, make_lms
from allim.enrolment.runs import Runs
from allim.enrolment.settings import EnrolmentSettings
from allim.enrolment.sync import EnrolmentSync
from allim.hub.coalescer import OnCommit

log = logging.getLogger("allim")

BUDGET_SHARE = 0.75
"""Of the lock's lease, for one request to the LMS with all its repeats."""


@asynccontextmanager
async def open_sync(
    database: Database,
    channels: Mapping[str, Channel],
    environment: Environment,
    *,
    on_commit: OnCommit = lambda lanes: None,
) -> AsyncIterator[EnrolmentSync | None]:
    """The sync over the LMS of the settings, None where LMS_KIND is not set; closes the LMS.

    Raises ConfigurationError for an LMS that is not wholly set up.
    """
    if not lms_is_set(environment):
        yield None
        return
    lease = environment.read(EnrolmentSettings).job_lock_seconds
    lms = make_lms(environment, budget=lease * BUDGET_SHARE, finished_runs=Runs(database).succeeded)
    log.info("enrolments are read from the LMS: %s", lms.kind)
    try:
        yield make_enrolment_sync(database, lms, channels, environment, on_commit=on_commit)
    finally:
        await lms.close()


def syncing(base: Foundation) -> AbstractAsyncContextManager[EnrolmentSync | None]:
    """The sync of a program; see `open_sync`."""
    return open_sync(base.database, base.channels, base.environment, on_commit=base.wakes)
