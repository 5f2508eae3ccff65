"""`/runs` and `/alerts`: what operators look at, and who may."""

from __future__ import annotations

from typing import Any

from allim.testing.lms.faults import Fault
from allim.testing.lms.kvca import COURSES, FakeKvca
from tests.enrolment.routes.conftest import COURSE, JOB, Office, Open

SEND = "send-secret-0123456789"
READ = "read-secret-0123456789"
OPERATE = "operate-secret-0123456789"
TENANT = "tenant-secret-0123456789"
KEYS = f"s:{SEND}:send,r:{READ}:read,ops:{OPERATE}:operate,shop:{TENANT}:admin:5"


async def listed(office: Office, path: str, **query: Any) -> list[dict[str, Any]]:
    answer = await office.api.get(path, params=query)
    assert answer.status == 200, answer.json
    items: list[dict[str, Any]] = answer.json["items"]
    return items


async def test_runs_are_listed_newest_first_and_by_what_they_are(
    office: Office, kvca: FakeKvca
) -> None:
    first = (await office.sync()).json["run_id"]
    kvca.fail(COURSES, Fault.status(409))
    second = (await office.sync(trigger_type="RETRY")).json["run_id"]

    assert [run["id"] for run in await listed(office, "/runs")] == [second, first]
    (failed,) = await listed(office, "/runs", status="FAILED")
    assert failed["trigger_type"] == "RETRY"
    assert failed["error_message"].startswith("upstream HTTP 409 from ")
    assert await listed(office, "/runs", trigger_type="RETRY") == [failed]
    assert await listed(office, "/runs", category_id=999) == []
    (whole,) = await listed(office, "/runs", status="SUCCESS", category_id=303)
    assert whole["summary"]["source_records_upserted"] == 178
    began = failed["started_at"]
    assert await listed(office, "/runs", **{"from": began}) == [failed]
    assert await listed(office, "/runs", to=began) == [whole]
    assert (await office.api.get(f"/runs/{second}")).json == failed
    assert (await office.api.get("/runs/99")).json["code"] == "run_not_found"


async def test_alerts_are_listed_by_pages_and_resolved(office: Office, kvca: FakeKvca) -> None:
    await office.sync()
    kvca.change(COURSE, "user07", status="GC", gc_date="2026-03-05 14:20:00")
    await office.sync()

    (changed,) = await listed(office, "/alerts", alert_type="CHANGED")
    assert (changed["severity"], changed["resolved"]) == ("high", False)
    assert "결제완료" in changed["message"]
    assert await listed(office, "/alerts", severity="high", resolved="false") == [changed]

    seen, query = [], "?limit=100"
    while query:
        page = (await office.api.get("/alerts" + query)).json
        seen += [alert["id"] for alert in page["items"]]
        query = f"?limit=100&cursor={page['next']}" if page["next"] else ""
    assert len(seen) == len(set(seen)) == 179
    assert seen == sorted(seen, reverse=True)

    answer = await office.api.post(f"/alerts/{changed['id']}/resolve")
    assert (answer.status, answer.json["resolved"]) == (200, True)
    again = await office.api.post(f"/alerts/{changed['id']}/resolve")
    assert again.json == answer.json
    assert await listed(office, "/alerts", severity="high", resolved="false") == []
    assert (await office.api.get(f"/alerts/{changed['id']}")).json == answer.json
    missing = await office.api.post("/alerts/99999/resolve")
    assert (missing.status, missing.json["code"]) == (404, "alert_not_found")


NO_FILTERS = [
    "/runs?limit=251",
    "/runs?status=DONE",
    "/runs?categroy_id=1",
    "/runs?from=yesterday",
    "/alerts?severity=urgent",
    "/alerts?cursor=nonsense",
    "/alerts?limit=0",
]


async def test_a_filter_that_cannot_be_is_refused(office: Office) -> None:
    for path in NO_FILTERS:
        assert (await office.api.get(path)).status in (400, 422), path


ALLOWED = [
    (READ, "GET", "/runs", 200),
    (READ, "GET", "/alerts", 200),
    (READ, "POST", JOB, 403),
    (READ, "POST", "/alerts/1/resolve", 403),
    (SEND, "GET", "/runs", 403),
    (OPERATE, "POST", JOB, 200),
    (OPERATE, "POST", "/alerts/1/resolve", 200),
    (TENANT, "POST", JOB, 403),
    (TENANT, "GET", "/runs", 403),
    (TENANT, "GET", "/alerts", 403),
    ("nobody-knows-this-key", "POST", JOB, 401),
]


async def test_who_may_do_what(open_office: Open) -> None:
    office = await open_office(ALLIM_API_KEYS=KEYS)
    for key, method, path, status in ALLOWED:
        answer = await office.api.call(
            method,
            path,
            headers={"Authorization": f"Bearer {key}"},
            json={"category_id": 303} if path == JOB else None,
        )
        assert answer.status == status, (key, path, answer.body)
        if status == 403 and path == JOB:
            assert answer.json["ok"] is False
    resolved = await office.api.get("/alerts/1", headers={"Authorization": f"Bearer {READ}"})
    assert resolved.json["resolved_by"] == "ops"
