"""Schedules over HTTP."""

from __future__ import annotations

from typing import Any

from allim.database.pool import Database
from tests.hub.conftest import Api, Start

SCHEDULE: dict[str, Any] = {
    "name": "autumn-303",
    "job": "enrolment-sync",
    "parameters": {"category_id": 303, "max_users_per_course": 500},
    "cron": "*/10 * * * *",
}
KEYS = "ops:operate-secret-0123456789:operate,see:read-secret-0123456789:read"
TENANT = "shop:tenant-secret-0123456789:admin:5"


async def test_a_schedule_is_made_shown_changed_and_removed(api: Api) -> None:
    made = await api.post("/schedules", json=SCHEDULE)
    assert made.status == 201, made.json
    shown = await api.get(made.headers["Location"])
    assert shown.json == made.json
    assert {**made.json, **SCHEDULE} == made.json
    assert made.json["timezone"] == "Asia/Seoul"
    assert made.json["enabled"]
    assert made.json["last_fire"] is made.json["overdue_since"] is None
    assert made.json["next_fire_at"] is not None
    assert (await api.get("/schedules")).json == {"items": [made.json], "next": None}

    where = made.headers["Location"]
    paused = (await api.call("PATCH", where, json={"enabled": False})).json
    assert (paused["enabled"], paused["next_fire_at"]) == (False, None)
    later = (await api.call("PATCH", where, json={"cron": "0 9 * * MON-FRI", "enabled": True})).json
    assert (later["cron"], later["parameters"]) == ("0 9 * * MON-FRI", SCHEDULE["parameters"])
    assert "T00:00:00Z" in later["next_fire_at"], "nine o'clock in Seoul"

    assert (await api.call("DELETE", where)).status == 204
    assert (await api.get(where)).status == 404
    assert (await api.call("DELETE", where)).json["code"] == "schedule_not_found"


async def test_every_wrong_field_is_named_with_its_place(api: Api) -> None:
    wrong = {
        "name": "x",
        "job": "enrolment-sync",
        "parameters": {"category_id": "303", "max_user_per_course": 5},
        "cron": "61 * * * *",
        "timezone": "Korea/Seoul",
    }
    answer = await api.post("/schedules", json=wrong)
    assert answer.status == 422
    assert {(error["place"], error["code"]) for error in answer.json["errors"]} == {
        ("/cron", "invalid_cron"),
        ("/timezone", "invalid_timezone"),
        ("/parameters/category_id", "int_type"),
        ("/parameters/max_user_per_course", "unknown_field"),
    }
    assert "minute" in answer.json["errors"][0]["message"]

    answer = await api.post("/schedules", json={**SCHEDULE, "job": "dance"})
    (error,) = answer.json["errors"]
    assert error["message"] == "must be one of enrolment-sync, outbox-dispatch"

    where = (await api.post("/schedules", json=SCHEDULE)).headers["Location"]
    changes: list[dict[str, Any]] = [
        {},
        {"cron": "* * *"},
        {"job": "enrolment-sync"},
        {"parameters": {}},
    ]
    for change in changes:
        assert (await api.call("PATCH", where, json=change)).status == 422, change


async def test_a_name_is_taken_once(api: Api) -> None:
    first = await api.post("/schedules", json=SCHEDULE)
    again = await api.post("/schedules", json=SCHEDULE)
    assert (again.status, again.json["code"]) == (409, "name_taken")
    other = await api.post("/schedules", json={**SCHEDULE, "name": "other"})
    renamed = await api.call("PATCH", other.headers["Location"], json={"name": first.json["name"]})
    assert (renamed.status, renamed.json["code"]) == (409, "name_taken")


async def test_running_now_is_asked_for_once(api: Api) -> None:
    where = (await api.post("/schedules", json=SCHEDULE)).headers["Location"]
    asked = await api.post(f"{where}/fire")
    assert (asked.status, asked.json["status"]) == (202, "QUEUED")
    again = await api.post(f"{where}/fire")
    assert (again.status, again.json["code"]) == (409, "still_running")
    assert (await api.get(f"{where}/fires")).json["items"] == [asked.json]
    assert (await api.get(where)).json["last_fire"] == asked.json
    assert (await api.get("/schedules/999/fires")).status == 404


async def test_lists_come_in_pages(api: Api, database: Database) -> None:
    made = [
        (await api.post("/schedules", json={**SCHEDULE, "name": f"s{n}"})).json["id"]
        for n in range(5)
    ]
    await database.fetch(
        "INSERT INTO schedule_fire (schedule_id, due_at, cause, status, finished_at)"
        " SELECT %(id)s, now() - n * interval '1 hour', 'slot', 'SUCCESS', now()"
        "   FROM generate_series(1, 5) AS n RETURNING id",
        {"id": made[0]},
    )
    for path, expected in (("/schedules", made[::-1]), (f"/schedules/{made[0]}/fires", None)):
        seen, query = [], "?limit=2"
        while query:
            page = (await api.get(path + query)).json
            seen += [item["id"] for item in page["items"]]
            query = f"?limit=2&cursor={page['next']}" if page["next"] else ""
        assert seen == (expected or sorted(seen, reverse=True))
        assert len(seen) == len(set(seen)) == 5
    assert (await api.get("/schedules?cursor=nonsense")).json["code"] == "invalid_cursor"


ALLOWED = [
    ("read-secret-0123456789", "GET", "/schedules", 200),
    ("read-secret-0123456789", "POST", "/schedules", 403),
    ("read-secret-0123456789", "POST", "/schedules/1/fire", 403),
    ("operate-secret-0123456789", "GET", "/schedules", 200),
    ("operate-secret-0123456789", "DELETE", "/schedules/1", 404),
    ("tenant-secret-0123456789", "GET", "/schedules", 403),
    ("tenant-secret-0123456789", "DELETE", "/schedules/1", 403),
]


async def test_who_may_do_what(start_api: Start) -> None:
    api = await start_api(ALLIM_API_KEYS=f"{KEYS},{TENANT}")
    for key, method, path, status in ALLOWED:
        answer = await api.call(method, path, headers={"Authorization": f"Bearer {key}"})
        assert answer.status == status, (key, path, answer.body)
