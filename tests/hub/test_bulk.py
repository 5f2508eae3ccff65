"""Many notifications in one request."""

from __future__ import annotations

from allim.database.pool import Database
from tests.hub.conftest import NOTIFICATION, Api, count


async def test_each_of_many_is_answered_by_itself(api: Api, database: Database) -> None:
    items = [
        {**NOTIFICATION, "idempotency_key": "k", "expires_at": "2099-01-01T00:00:00Z"},
        {**NOTIFICATION, "source": ""},
        5,
        {**NOTIFICATION, "idempotency_key": "k", "expires_at": "2099-01-01T00:00:00Z"},
        {**NOTIFICATION, "idempotency_key": "k"},
        {**NOTIFICATION, "data": {"x": "\0"}},
    ]

    answer = await api.post("/notifications/bulk", json={"notifications": items})

    assert answer.status == 200
    results = answer.json["results"]
    assert [r["status"] for r in results] == [202, 422, 422, 202, 422, 422]
    assert results[0]["notification"]["id"] == results[3]["notification"]["id"]
    assert (results[0]["replayed"], results[3]["replayed"]) == (False, True)
    assert results[1]["problem"]["errors"][0]["place"] == "/source"
    assert results[4]["problem"]["code"] == "idempotency_mismatch"
    assert await count(database, "notification") == 1


async def test_a_thousand_share_few_transactions(api: Api, database: Database) -> None:
    body = {"notifications": [NOTIFICATION] * 1000}

    answer = await api.post("/notifications/bulk", json=body)

    assert [r["status"] for r in answer.json["results"]] == [202] * 1000
    rows = await database.fetch("SELECT count(DISTINCT xmin::text) FROM notification")
    assert rows[0][0] <= 4
    assert await count(database, "delivery") == 2000


async def test_more_than_a_thousand_or_none_are_refused(api: Api) -> None:
    for number in (0, 1001):
        items: list[object] = [{}] * number
        answer = await api.post("/notifications/bulk", json={"notifications": items})
        assert answer.status == 422


async def test_more_deliveries_than_a_request_may_make_are_refused_item_by_item(api: Api) -> None:
    many = [f"kim{at}@example.com" for at in range(1000)]
    item = {**NOTIFICATION, "deliveries": [{"channel": "EMAIL", "recipients": many}]}

    answer = await api.post("/notifications/bulk", json={"notifications": [item] * 11})

    results = answer.json["results"]
    assert [r["status"] for r in results] == [202] * 10 + [422]
    assert results[10]["problem"]["errors"][0]["code"] == "too_many_deliveries"
    shown = results[0]["notification"]["deliveries"]
    assert [d["recipient"] for d in shown] == many
    assert len({d["id"] for r in results[:10] for d in r["notification"]["deliveries"]}) == 10_000


async def test_a_body_that_is_no_bulk_request_is_refused_as_a_whole(api: Api) -> None:
    for body in (b"{", b"[]", b'{"notifications":{}}', b'{"items":[]}'):
        headers = {"Content-Type": "application/json"}
        answer = await api.post("/notifications/bulk", data=body, headers=headers)
        assert 400 <= answer.status < 500
        assert answer.headers["Content-Type"] == "application/problem+json"
