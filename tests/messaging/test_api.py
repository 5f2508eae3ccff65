"""Messages, tenants, opt-outs, reservations and traces over HTTP."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest

from allim.app import create_app
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.relay.outcomes import Outcome
from allim.web.access import AccessScope
from allim.web.keys import create_key
from tests.hub.conftest import Api
from tests.messaging.money_rig import Money
from tests.serving import serving

KAKAO = {"SOLAPI_KAKAO_PF_ID": "PF0", "SOLAPI_KAKAO_TEMPLATE_ID": "TP0"}
JOB = {"to": "010-1234-5678", "text": "예약되었습니다"}


@pytest.fixture
async def api(database: Database, channels: Mapping[str, Channel]) -> AsyncIterator[Api]:
    woken: list[set[str]] = []
    app = create_app(
        database, channels, Environment(KAKAO), on_commit=lambda lanes: woken.append(set(lanes))
    )
    async with serving(app) as url, aiohttp.ClientSession() as session:
        yield Api(url, session, woken)


async def test_a_posted_message_is_queued_once(api: Api) -> None:
    first = await api.post("/messages", json={**JOB, "job_id": "m-1", "message_mode": "both"})
    again = await api.post("/messages", json={**JOB, "job_id": "m-1", "use_alimtalk_first": True})
    other = await api.post("/messages", json={**JOB, "job_id": "m-1", "text": "다른 내용"})

    assert (first.status, again.status, other.status) == (202, 202, 422)
    assert first.json["id"] == again.json["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert other.json["code"] == "idempotency_mismatch"
    assert other.json["detail"] == "the job id 'm-1' was used before, by another job"
    odd = await api.post("/messages", json=JOB, headers={"Idempotency-Key": "a b"})
    assert [one["place"] for one in odd.json["errors"]] == ["Idempotency-Key"]
    keyed = [
        await api.post("/messages", json=JOB, headers={"Idempotency-Key": "k-1"}) for _ in range(2)
    ]
    assert keyed[0].json["id"] == keyed[1].json["id"]
    shown = (await api.get(first.headers["Location"])).json
    (delivery,) = shown["deliveries"]
    assert (delivery["channel"], delivery["template_code"]) == ("ALIMTALK", "TP0")
    assert delivery["payload"]["pf_id"] == "PF0"
    assert delivery["fallback"][0]["channel"] == "SMS"
    assert {"ALIMTALK"} in [set(lanes) for lanes in api.woken]


async def test_a_message_may_wait_for_its_moment(api: Api) -> None:
    moments = {"scheduled_at": "2099-01-02T09:00:00+09:00", "expires_at": "2099-01-03T00:00:00Z"}
    posted = await api.post("/messages", json={**JOB, **moments})
    assert posted.status == 202, posted.json
    shown = (await api.get(posted.headers["Location"])).json
    assert shown["scheduled_at"] == "2099-01-02T00:00:00Z"
    assert shown["expires_at"] == "2099-01-03T00:00:00Z"
    for odd in ("2099-01-02T09:00:00", 1700000000, "soon"):
        refused = await api.post("/messages", json={**JOB, "scheduled_at": odd})
        assert (refused.status, refused.json["errors"][0]["place"]) == (422, "/scheduled_at")


async def test_what_is_wrong_with_a_message_is_told_field_by_field(api: Api) -> None:
    answer = await api.post(
        "/messages", json={"to": "02-123-4567", "text": "", "message_mode": "fax", "x": 1}
    )
    assert answer.status == 422
    assert {one["place"] for one in answer.json["errors"]} == {
        "/to",
        "/text",
        "/message_mode",
        "/x",
    }
    answer = await api.post("/messages", json={**JOB, "tenant_id": 9})
    assert answer.json["errors"] == [
        {"place": "/tenant_id", "code": "unknown_tenant", "message": "there is no such tenant"}
    ]
    answer = await api.post("/messages", json={**JOB, "text": "축하 🎉"})
    assert (answer.status, answer.json["errors"][0]["place"]) == (422, "/text")
    answer = await api.post("/messages", json={**JOB, "advertising": True})
    assert (answer.status, answer.json["errors"][0]["place"]) == (422, "/advertising")


async def test_a_tenant_is_opened_changed_credited_and_shown(api: Api, database: Database) -> None:
    opened = await api.post(
        "/tenants", json={"id": 3, "name": "튼튼의원", "balance": 100, "sender": "02-1234-5678"}
    )
    assert (opened.status, opened.headers["Location"]) == (201, "/tenants/3")
    assert opened.json["sender"] == "0212345678"
    again = await api.post("/tenants", json={"id": 3, "name": "다른 곳"})
    assert (again.status, again.json["code"]) == (409, "tenant_exists")
    changed = await api.call("PATCH", "/tenants/3", json={"kakao_pf_id": "PF3", "sender": None})
    assert (changed.json["kakao_pf_id"], changed.json["sender"]) == ("PF3", None)
    for status in (201, 200):
        answer = await api.post(
            "/tenants/3/credits",
            json={"amount": 500, "note": "=1+1"},
            headers={"Idempotency-Key": "pay-1"},
        )
        assert (answer.status, answer.json["balance_after"]) == (status, 600)
    taken = await api.post("/tenants/3/credits", json={"amount": -601})
    assert (taken.status, taken.json["code"]) == (409, "balance_too_low")
    nothing = await api.post("/tenants/3/credits", json={"amount": 0})
    assert (nothing.status, nothing.json["errors"][0]["place"]) == (422, "/amount")
    assert (await api.get("/tenants/3")).json["balance"] == 600
    assert (await api.get("/tenants/4")).status == 404
    assert [one["id"] for one in (await api.get("/tenants")).json["items"]] == [3]

    money = Money(database)
    await money.add(3, count=2)
    await money.round(Outcome.delivered())
    page = (await api.get("/tenants/3/ledger?limit=3")).json
    assert [row["amount"] for row in page["items"]] == [-20, -20, 500]
    rest = (await api.get(f"/tenants/3/ledger?cursor={page['next']}")).json
    assert [row["kind"] for row in rest["items"]] == ["opening"]
    empty = (await api.get("/tenants/3/ledger?month=2001-01")).json
    assert empty["items"] == []
    assert (await api.get("/tenants/3/ledger?month=2026-13")).status == 422
    answer = await api.get("/tenants/3/ledger", headers={"Accept": "text/csv"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [(row["kind"], row["amount"], row["balance_after"]) for row in rows] == [
        ("opening", "100", "100"),
        ("credit", "500", "600"),
        ("debit", "-20", "580"),
        ("debit", "-20", "560"),
    ]
    assert rows[1]["note"] == "'=1+1"
    assert rows[2]["recipient"] == "01012345678"


async def test_a_tenants_own_key_sees_and_does_only_what_is_its_own(
    api: Api, database: Database
) -> None:
    money = Money(database)
    await money.open(1, 100)
    await money.open(2, 100)
    await create_key(database, "root", [AccessScope.ADMIN])
    token = await create_key(database, "one", list(AccessScope), tenant_id=1)
    headers = {"Authorization": f"Bearer {token}"}

    posted = await api.post("/messages", json=JOB, headers=headers)
    shown = (await api.get(posted.headers["Location"], headers=headers)).json
    assert shown["tenant_id"] == 1
    for method, path, body in (
        ("POST", "/messages", {**JOB, "tenant_id": 2}),
        ("POST", "/suppressions", {"recipient": "01011112222", "tenant_id": 2}),
        ("POST", "/reservations/5/cancel", {"tenant_id": 2}),
    ):
        assert (await api.call(method, path, json=body, headers=headers)).status == 422
    for method, path, body in (
        ("POST", "/tenants", {"id": 5, "name": "x"}),
        ("POST", "/tenants/1/credits", {"amount": 5}),
    ):
        assert (await api.call(method, path, json=body, headers=headers)).status == 403
    assert (await api.get("/tenants/2", headers=headers)).status == 404
    assert (await api.get("/tenants/2/ledger", headers=headers)).status == 404
    listed = (await api.get("/tenants", headers=headers)).json["items"]
    assert [one["id"] for one in listed] == [1]
    traced = (await api.get("/trace?recipient=01012345678", headers=headers)).json
    assert [one["tenant_id"] for one in traced["deliveries"]] == [1]
    assert (await api.get("/tenants/1")).status == 401


async def test_a_tenant_learns_no_address_of_another_from_the_opt_out_list(
    api: Api, database: Database
) -> None:
    money = Money(database)
    await money.open(1, 100)
    await money.open(2, 100)
    token = await create_key(database, "one", list(AccessScope), tenant_id=1)
    root = await create_key(database, "root", [AccessScope.ADMIN])
    await database.fetch(
        "INSERT INTO suppression"
        " (tenant_id, recipient_kind, recipient, reason, detail, delivery_id)"
        " SELECT t, 'email', r, 'hard_bounce', 'to 4711', 4711 FROM (VALUES"
        " (NULL::bigint, 'all@x.kr'), (1, 'own@x.kr'), (2, 'other@x.kr')) AS v (t, r) RETURNING id"
    )

    async def seen(key: str, query: str = "") -> dict[str, tuple[str | None, int | None]]:
        headers = {"Authorization": f"Bearer {key}"}
        items = (await api.get(f"/suppressions{query}", headers=headers)).json["items"]
        return {one["recipient"]: (one["detail"], one["delivery_id"]) for one in items}

    assert await seen(token) == {"own@x.kr": ("to 4711", 4711)}
    assert await seen(token, "?recipient=other@x.kr") == {}
    assert await seen(token, "?recipient=all@x.kr") == {"all@x.kr": (None, None)}
    assert set(await seen(root)) == {"all@x.kr", "own@x.kr", "other@x.kr"}
    headers = {"Authorization": f"Bearer {token}"}
    traced = (await api.get("/trace?recipient=all@x.kr", headers=headers)).json["suppressions"]
    assert [(one["detail"], one["delivery_id"]) for one in traced] == [(None, None)]


async def test_cancelling_a_reservation_takes_back_what_waits_for_it(
    api: Api, database: Database
) -> None:
    for reservation in (5, "5", 6):
        await api.post("/messages", json={**JOB, "reservation_id": reservation})

    answer = await api.post("/reservations/5/cancel")

    assert answer.json == {
        "reservation_id": "5",
        "tenant_id": None,
        "canceled": 2,
        "under_way": 0,
    }
    assert (await api.post("/reservations/5/cancel")).json["canceled"] == 0
    rows = await database.fetch("SELECT status FROM delivery ORDER BY id")
    assert [row[0] for row in rows] == ["CANCELED", "CANCELED", "PENDING"]


async def test_the_opt_out_list_is_kept_by_number_however_it_is_written(api: Api) -> None:
    added = await api.post(
        "/suppressions", json={"recipient": "+82 10-1234-5678", "reason": "요청"}
    )
    assert (added.status, added.json["recipient"]) == (201, "01012345678")
    for odd in ({"recipient": "010-1234-567"}, {"recipient": "a@b"}, {"recipient": " "}):
        refused = await api.post("/suppressions", json=odd)
        assert (refused.status, refused.json["errors"][0]["place"]) == (422, "/recipient")
    again = await api.post("/suppressions", json={"recipient": "01012345678"})
    assert again.json["id"] == added.json["id"]
    found = (await api.get("/suppressions?recipient=010.1234.5678")).json["items"]
    assert [one["reason"] for one in found] == ["요청"]
    assert (await api.call("DELETE", f"/suppressions/{added.json['id']}")).status == 204
    assert (await api.call("DELETE", f"/suppressions/{added.json['id']}")).status == 404


async def test_a_trace_tells_all_that_was_done_for_a_number(api: Api, database: Database) -> None:
    money = Money(database)
    await money.open(1, 30)
    await money.add(1, count=2)
    (work, *_), refused = await money.claim()
    await money.box.record_provider_id([work], "g-1")
    await money.settle([work], Outcome.accepted(provider_id="g-1", provider_message_id="m-1"))
    await money.receive(work.id, "g-1", "DELIVERED")
    assert len(refused) == 1
    await database.fetch(
        "INSERT INTO refused_job (message_id, recipient, reason)"
        " VALUES ('q-1', '01012345678', 'unknown mode') RETURNING 1"
    )
    await api.post("/suppressions", json={"recipient": "01012345678"})

    for spelt in ("01012345678", "010-1234-5678", "%2B82 10 1234 5678"):
        traced = (await api.get(f"/trace?recipient={spelt}")).json
        first, second = traced["deliveries"]
        assert (first["status"], first["group_id"], first["message_id"]) == (
            "SUCCESS",
            "g-1",
            "m-1",
        )
        assert (first["receipt_status"], first["charged"]) == ("DELIVERED", 20)
        assert first["attempts"][0]["receipt_status"] == "DELIVERED"
        assert (second["status"], second["charged"]) == ("PROCESSING", 0)
        assert [job["reason"] for job in traced["refused_jobs"]] == ["unknown mode"]
        assert [one["recipient"] for one in traced["suppressions"]] == ["01012345678"]
    for word in ("m-1", " g-1"):
        traced = (await api.get("/trace", params={"recipient": word})).json
        assert [one["id"] for one in traced["deliveries"]] == [work.id]
        assert (traced["refused_jobs"], traced["suppressions"]) == ([], [])
    assert (await api.get("/trace?recipient=m-2")).json["deliveries"] == []


async def test_a_tenant_traces_no_message_of_another(api: Api, database: Database) -> None:
    money = Money(database)
    await money.open(2, 30)
    await money.add(2, count=1)
    [(work,), _] = await money.claim()
    await money.box.record_provider_id([work], "g-2")
    await money.settle([work], Outcome.accepted(provider_id="g-2", provider_message_id="m-2"))
    own, theirs = [
        await create_key(database, f"t{number}", list(AccessScope), tenant_id=number)
        for number in (1, 2)
    ]

    async def found(key: str, word: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        traced = (await api.get("/trace", params={"recipient": word}, headers=headers)).json
        return len(traced["deliveries"])

    for word in ("m-2", "g-2"):
        assert (await found(own, word), await found(theirs, word)) == (0, 1)
