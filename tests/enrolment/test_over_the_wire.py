"""The sync over a real client and a server that misbehaves: good courses are kept, nobody is
missed by mistake, and the next good run finds nothing left to tell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.enrolment.lms.making import make_lms
from allim.enrolment.model import SyncRequest, SyncResult
from allim.enrolment.settings import EnrolmentSettings
from allim.enrolment.sync import EnrolmentSync
from allim.testing.lms.faults import Fault
from allim.testing.lms.kvca import COURSES, DETAIL, LOGIN, ROSTER, FakeKvca

BAD, GOOD = 447, 448
FAULTS: Mapping[str, tuple[str, Fault, str]] = {
    "conflict": (ROSTER, Fault.status(409), "upstream HTTP 409 "),
    "down": (ROSTER, Fault.status(503), "upstream HTTP 503 "),
    "html": (ROSTER, Fault.page(), ""),
    "maintenance": (ROSTER, Fault.maintenance(), "upstream HTTP 503 "),
    "slow": (ROSTER, Fault.hang(), "timeout: "),
    "cut off": (ROSTER, Fault.cut(), ""),
    "half a listing": (ROSTER, Fault.half(), ""),
    "no course list": (COURSES, Fault.status(500), "upstream HTTP 500 "),
    "an empty course list": (COURSES, Fault.answer("{}"), "upstream: "),
    "no login": (LOGIN, Fault.status(401), ""),
    "no details": (DETAIL, Fault.status(500), "upstream HTTP 500 "),
}


@pytest.fixture
async def lms() -> AsyncIterator[FakeKvca]:
    """Two courses with a user in both."""
    async with FakeKvca() as lms:
        for course in (BAD, GOOD):
            lms.add_course(303, course, f"과목 {course}")
            lms.enrol(course, "kim01", userName="김민수", status="DS")
            lms.enrol(course, f"lee{course}", userName="이영희", status="GC")
        yield lms


async def sync(lms: FakeKvca, database: Database, channels: Mapping[str, Channel]) -> SyncResult:
    environment = Environment({**lms.environment(), "LMS_RETRIES": "0", "LMS_TIMEOUT_SECONDS": "5"})
    client = make_lms(environment)
    try:
        service = EnrolmentSync(database, client, channels, environment.read(EnrolmentSettings))
        return await service.run(SyncRequest(category_id=303))
    finally:
        await client.close()


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_costs_only_what_it_hit(
    name: str, lms: FakeKvca, database: Database, channels: Mapping[str, Channel]
) -> None:
    path, fault, beginning = FAULTS[name]
    first = await sync(lms, database, channels)
    assert (first.ok, first.summary.created_alerts) == (True, 7)
    lms.change(BAD, "kim01", status="GC")
    lms.change(GOOD, "kim01", status="GC")
    lms.drop(BAD, f"lee{BAD}")
    where = {"courseid": BAD} if path == ROSTER else None
    lms.fail(path, fault, times=None, where=where)

    failed = await sync(lms, database, channels)

    assert not failed.ok
    assert failed.error is not None
    assert failed.error.startswith(beginning)
    assert lms.login[1] not in failed.error
    whole = path == DETAIL
    assert failed.summary.missing_records == int(whole)
    assert failed.summary.changed_records == (3 if whole else 1 if path == ROSTER else 0)
    lms.heal()
    again = await sync(lms, database, channels)
    assert again.ok
    assert failed.summary.changed_records + again.summary.changed_records == 3
    told = await database.fetch(
        "SELECT row_key FROM sheet_outbox WHERE alert_type = 'CHANGED' ORDER BY 1"
    )
    assert [row[0] for row in told] == [
        "enrolment_status:303:447:kim01:CHANGED:r2",
        "enrolment_status:303:447:lee447:CHANGED:r2",
        "enrolment_status:303:448:kim01:CHANGED:r2",
    ]
    assert await database.fetch(
        "SELECT count(*), bool_and(resolved) FROM alert WHERE alert_type = 'FAILED'"
    ) == [(1, True)]
