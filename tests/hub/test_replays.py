"""Replays: dead letters sent again by a filter, step by step, by anybody."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import psycopg
import pytest

from allim.database.pool import Database
from allim.hub.replaying import ReplayRunner
from allim.relay.wake import WakeSignal
from tests.hub.conftest import NOTIFICATION, Api, Start
from tests.hub.test_operations import child, put

WHO = "anybody"


async def dead(api: Api, database: Database, count: int, **columns: Any) -> list[int]:
    """Deliveries that died of HTTP 500, each of a notification of its own."""
    body = {**NOTIFICATION, "deliveries": [{"channel": "LOG", "recipient": "ops"}]}
    made = [(await api.create(body)).json for _ in range(count)]
    ids = [notification["deliveries"][0]["id"] for notification in made]
    for one in ids:
        await put(database, one, **{"status": "DEAD", "error_code": "http_500", **columns})
    api.woken.clear()
    return ids


async def statuses(database: Database, ids: list[int]) -> list[str]:
    rows = await database.fetch(
        "SELECT status FROM delivery WHERE id = ANY (%(ids)s) ORDER BY id", {"ids": ids}
    )
    return [row[0] for row in rows]


async def replay(api: Api, **wanted: Any) -> dict[str, Any]:
    answer = await api.post("/replays", json={"filter": wanted})
    assert answer.status == 202, answer.json
    job: dict[str, Any] = answer.json
    return job


def runner(database: Database, woken: list[set[str]] | None = None) -> ReplayRunner:
    return ReplayRunner(database, WakeSignal(), (woken if woken is not None else []).append)


async def run_to_the_end(database: Database) -> None:
    doing = runner(database)
    while await doing.step() is not None:
        pass


async def test_dead_letters_that_fit_are_sent_again_and_no_others(
    api: Api, database: Database
) -> None:
    fitting = await dead(api, database, 3)
    other = await dead(api, database, 2, error_code="http_404")
    [held] = await dead(api, database, 1, status="HELD")

    job = await replay(api, error_code="http_500", channel="LOG")
    assert (job["status"], job["total"], job["requested_by"]) == ("RUNNING", 3, WHO)
    assert api.woken == [{"REPLAY"}]
    woken: list[set[str]] = []
    step = await runner(database, woken).step()

    assert step is not None
    assert (step.replayed, step.ended) == (3, True)
    assert woken == [{"LOG"}]
    assert await statuses(database, fitting) == ["PENDING"] * 3
    assert await statuses(database, [*other, held]) == ["DEAD", "DEAD", "HELD"]
    shown = (await api.get(f"/replays/{job['id']}")).json
    assert (shown["status"], shown["replayed"], shown["skipped"]) == ("COMPLETED", 3, 0)
    assert shown["finished_at"] is not None
    assert [j["id"] for j in (await api.get("/replays")).json["items"]] == [job["id"]]


async def test_nothing_of_the_old_attempt_stays(api: Api, database: Database) -> None:
    [one] = await dead(api, database, 1, provider_id="G1", retry_count=7, last_error="no")

    await replay(api)
    await run_to_the_end(database)

    shown = (await api.get(f"/deliveries/{one}")).json
    assert (shown["provider_id"], shown["retry_count"], shown["last_error"]) == (None, 0, None)


async def test_a_dry_run_counts_in_groups_and_stores_nothing(api: Api, database: Database) -> None:
    await dead(api, database, 2)
    await dead(api, database, 1, error_code="http_404")

    answer = await api.post("/replays", json={"filter": {}, "dry_run": True})

    assert answer.status == 200
    assert answer.json["total"] == 3
    assert [(g["error_code"], g["count"]) for g in answer.json["groups"]] == [
        ("http_500", 2),
        ("http_404", 1),
    ]
    assert (await api.get("/replays")).json["items"] == []


async def test_a_replay_that_means_nothing_is_completed_at_once(api: Api) -> None:
    job = await replay(api, source="nobody")

    assert (job["status"], job["total"]) == ("COMPLETED", 0)


async def test_every_filter_is_heeded(api: Api, database: Database) -> None:
    [one] = await dead(api, database, 1)
    shown = (await api.get(f"/deliveries/{one}")).json
    moment = shown["created_at"]
    fits: dict[str, Any] = {
        "recipient": "ops",
        "source": NOTIFICATION["source"],
        "type": NOTIFICATION["type"],
        "notification_id": shown["notification_id"],
        "from": moment,
    }
    fits_not = {
        "recipient": "kim",
        "source": "x",
        "type": "x",
        "notification_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "from": "2999-01-01T00:00:00Z",
        "to": moment,
        "channel": "EMAIL",
        "status": ["HELD"],
    }
    for name, value in fits.items():
        body = {"filter": {name: value}, "dry_run": True}
        assert (await api.post("/replays", json=body)).json["total"] == 1, name
    for name, value in fits_not.items():
        body = {"filter": {name: value}, "dry_run": True}
        assert (await api.post("/replays", json=body)).json["total"] == 0, name


async def test_what_cannot_be_meant_is_refused_with_its_place(api: Api) -> None:
    for body, place in [
        ({}, "/filter"),
        ({"filter": {"status": ["SUCCESS"]}}, "/filter/status/0"),
        ({"filter": {"chanel": "LOG"}}, "/filter/chanel"),
        ({"filter": {}, "rate_per_second": 0}, "/rate_per_second"),
        ({"filter": {"from": "yesterday"}}, "/filter/from"),
    ]:
        answer = await api.post("/replays", json=body)
        assert (answer.status, answer.json["errors"][0]["place"]) == (422, place)
    assert (await api.get("/replays/1")).status == 404
    assert (await api.post("/replays/1/pause")).status == 404


async def test_what_dies_again_is_not_sent_again_by_the_same_job(
    api: Api, database: Database
) -> None:
    first, second = await dead(api, database, 2)
    job = (await api.post("/replays", json={"filter": {}, "rate_per_second": 1})).json
    doing = runner(database)
    assert await doing.step() is not None
    await put(database, first, "DEAD")
    await due(database)

    while await doing.step() is not None:
        await due(database)

    assert await statuses(database, [first, second]) == ["DEAD", "PENDING"]
    shown = (await api.get(f"/replays/{job['id']}")).json
    assert (shown["status"], shown["replayed"]) == ("COMPLETED", 2)


async def due(database: Database) -> None:
    await database.fetch("UPDATE replay_job SET next_step_at = now() RETURNING id")


async def test_a_rate_puts_the_next_step_off(api: Api, database: Database) -> None:
    await dead(api, database, 5)
    await api.post("/replays", json={"filter": {}, "rate_per_second": 2})
    doing = runner(database)

    step = await doing.step()

    assert step is not None
    assert step.replayed == 2
    assert await doing.step() is None
    [(seconds,)] = await database.fetch(
        "SELECT extract(epoch FROM next_step_at - updated_at)::float8 FROM replay_job"
    )
    assert seconds == pytest.approx(1.0, abs=0.5)


async def test_a_paused_job_rests_and_goes_on_where_it_was(api: Api, database: Database) -> None:
    ids = await dead(api, database, 3)
    job = (await api.post("/replays", json={"filter": {}, "rate_per_second": 1})).json
    path = f"/replays/{job['id']}"
    assert await runner(database).step() is not None
    assert (await api.post(f"{path}/pause")).json["status"] == "PAUSED"
    await due(database)
    assert await runner(database).step() is None
    refused = await api.post(f"{path}/pause")
    assert (refused.status, refused.json["code"]) == (409, "not_pauseable")

    assert (await api.post(f"{path}/resume")).json["status"] == "RUNNING"
    for _ in range(3):
        await runner(database).step()
        await due(database)

    assert await statuses(database, ids) == ["PENDING"] * 3
    assert (await api.get(path)).json["status"] == "COMPLETED"
    assert (await api.post(f"{path}/cancel")).status == 409


async def test_a_cancelled_job_sends_nothing_more(api: Api, database: Database) -> None:
    ids = await dead(api, database, 3)
    job = (await api.post("/replays", json={"filter": {}, "rate_per_second": 1})).json
    await runner(database).step()

    assert (await api.post(f"/replays/{job['id']}/cancel")).json["status"] == "CANCELED"
    await due(database)
    assert await runner(database).step() is None

    assert await statuses(database, ids) == ["PENDING", "DEAD", "DEAD"]


async def test_what_changed_meanwhile_is_passed_over(api: Api, database: Database) -> None:
    canceled, expired, fine = await dead(api, database, 3)
    job = await replay(api)
    notification = (await api.get(f"/deliveries/{canceled}")).json["notification_id"]
    await database.fetch(
        "UPDATE notification SET canceled_at = now() WHERE id = %(id)s RETURNING id",
        {"id": notification},
    )
    await put(database, expired, "DEAD", expires_at="2020-01-01T00:00:00Z")

    await run_to_the_end(database)

    assert await statuses(database, [canceled, expired, fine]) == ["DEAD", "DEAD", "PENDING"]
    shown = (await api.get(f"/replays/{job['id']}")).json
    assert (shown["replayed"], shown["skipped"]) == (1, 2)


async def test_of_a_branch_only_its_last_word_is_sent_again(api: Api, database: Database) -> None:
    [parent] = await dead(api, database, 1)
    fallback = await child(database, parent, "fallback", "DEAD")

    job = await replay(api)
    await run_to_the_end(database)

    assert job["total"] == 1
    assert await statuses(database, [parent, fallback]) == ["DEAD", "PENDING"]


async def test_many_runners_send_each_once(api: Api, database: Database) -> None:
    ids = await dead(api, database, 12)
    jobs = [await replay(api, recipient="ops") for _ in range(3)]

    async def one() -> None:
        doing = runner(database)
        while await doing.step() is not None:
            pass

    await asyncio.gather(*(one() for _ in range(4)))
    await run_to_the_end(database)

    shown = [(await api.get(f"/replays/{job['id']}")).json for job in jobs]
    assert {job["status"] for job in shown} == {"COMPLETED"}
    assert sum(job["replayed"] for job in shown) == len(ids)
    assert await statuses(database, ids) == ["PENDING"] * len(ids)


async def test_who_did_what_is_in_the_audit_log(start_api: Start, database: Database) -> None:
    api = await start_api(ALLIM_API_KEYS="lee:0123456789abcdef0123:operate+send")
    headers = {"Authorization": "Bearer 0123456789abcdef0123"}
    body = {**NOTIFICATION, "deliveries": [{"channel": "LOG"}]}
    created = (await api.call("POST", "/notifications", json=body, headers=headers)).json
    await put(database, created["deliveries"][0]["id"], "DEAD")
    job = await api.call(
        "POST", "/replays", json={"filter": {}, "reason": "Slack is back"}, headers=headers
    )
    await api.call("POST", f"/replays/{job.json['id']}/cancel", headers=headers)

    rows = await database.fetch("SELECT actor, action, subject, detail FROM audit_log ORDER BY id")

    subject = f"replay {job.json['id']}"
    assert rows == [
        ("lee", "replay.create", subject, {"reason": "Slack is back", "total": 1}),
        ("lee", "replay.cancel", subject, {"replayed": 0}),
    ]


async def test_a_tenants_key_replays_its_own(start_api: Start, database: Database) -> None:
    keys = "all:0123456789abcdef0123:admin,five:fedcba98765432100123:operate:5"
    api = await start_api(ALLIM_API_KEYS=keys)
    every, five = (
        {"Authorization": f"Bearer {token}"}
        for token in ("0123456789abcdef0123", "fedcba98765432100123")
    )
    for tenant in (5, 6):
        body = {**NOTIFICATION, "tenant_id": tenant, "deliveries": [{"channel": "LOG"}]}
        made = (await api.call("POST", "/notifications", json=body, headers=every)).json
        await put(database, made["deliveries"][0]["id"], "DEAD")

    own = await api.call("POST", "/replays", json={"filter": {}}, headers=five)
    whole = await api.call("POST", "/replays", json={"filter": {}}, headers=every)

    assert (own.json["total"], own.json["tenant_id"]) == (1, 5)
    assert whole.json["total"] == 2
    hidden = await api.call("GET", f"/replays/{whole.json['id']}", headers=five)
    assert hidden.status == 404
    other = {"filter": {}, "tenant_id": 6}
    refused = await api.call("POST", "/replays", json=other, headers=five)
    assert refused.json["errors"][0]["code"] == "tenant_mismatch"


KILLED = """
import asyncio, os, signal, sys
from allim.database.pool import Connection, Database
from allim.hub import replaying
from allim.relay.wake import WakeSignal

moment, replaying.STEP = sys.argv[2], 4
execute = Connection.__origin__.execute
async def dying(self, statement, *more, **options):
    answer = await execute(self, statement, *more, **options)
    if moment == "in a step" and "SET last_id" in str(statement):
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
Connection.__origin__.execute = dying

async def main():
    async with Database(sys.argv[1]) as database:
        runner = replaying.ReplayRunner(database, WakeSignal(), lambda lanes: None)
        await runner.step()
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize(("moment", "done"), [("in a step", 0), ("after a step", 4)])
async def test_a_runner_killed_does_a_step_wholly_or_not_at_all(
    api: Api, database: Database, database_url: str, moment: str, done: int
) -> None:
    ids = await dead(api, database, 10)
    job = await replay(api)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, database_url, moment
    )
    assert await process.wait() == -9
    with psycopg.connect(database_url, autocommit=True) as connection:
        # Only once its backend is gone is what it held free again.
        while connection.execute(
            "SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " WHERE c.relname = 'replay_job' AND l.pid <> pg_backend_pid()"
        ).fetchone():
            pass
    shown = (await api.get(f"/replays/{job['id']}")).json
    assert shown["replayed"] == done
    assert (await statuses(database, ids)).count("PENDING") == done

    await run_to_the_end(database)

    shown = (await api.get(f"/replays/{job['id']}")).json
    assert (shown["status"], shown["replayed"]) == ("COMPLETED", 10)
    assert await statuses(database, ids) == ["PENDING"] * 10
