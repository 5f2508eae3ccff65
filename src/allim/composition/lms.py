"""The LMS of the settings, with what it needs of the database."""

from __future__ import annotations

from typing import LiteralString

from allim.base.settings import Environment
from allim.database.pool import Database
from allim.enrolment.lms.making import make_lms
from allim.enrolment.lms.protocol import Lms
from allim.enrolment.settings import EnrolmentSettings

BUDGET_SHARE = 0.75
"""Share of the job lock's lease that one request to the LMS may take, with all its repeats."""

# Served by the partial index run_log_succeeded.
SUCCEEDED: LiteralString = """
SELECT count(*) FROM run_log WHERE category_id = %(category)s AND status = 'SUCCESS'
"""


def lms_of(environment: Environment, database: Database | None = None) -> Lms:
    """The LMS; whoever asks for it closes it. Raises ConfigurationError, also for none at all.

    Without a database the sample's data stand still.
    """

    async def finished_runs(category_id: int) -> int:
        assert database is not None
        rows = await database.fetch(SUCCEEDED, {"category": category_id})
        return int(rows[0][0])

    return make_lms(
        environment,
        budget=environment.read(EnrolmentSettings).job_lock_seconds * BUDGET_SHARE,
        finished_runs=None if database is None else finished_runs,
    )
