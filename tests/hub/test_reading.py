"""Reading notifications and deliveries."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import pytest

from allim.database.pool import Database
from allim.hub.reading import SQL, Reader
from tests.hub.conftest import NOTIFICATION, Api

STATUSES = {
    "PENDING": ["PENDING", "PENDING"],
    "PROCESSING": ["SUCCESS", "FAILED"],
    "COMPLETED": ["SUCCESS", "SKIPPED"],
    "PARTIALLY_FAILED": ["SUCCESS", "DEAD"],
    "FAILED": ["DEAD", "SKIPPED"],
    "SKIPPED": ["SKIPPED", "SKIPPED"],
    "CANCELED": ["CANCELED", "CANCELED"],
    "EXPIRED": ["EXPIRED", "EXPIRED"],
}


async def create(api: Api, **fields: Any) -> str:
    answer = await api.create({**NOTIFICATION, **fields})
    assert answer.status == 202
    return str(answer.json["id"])


async def listed(api: Api, path: str = "/notifications", **query: Any) -> list[Any]:
    """All items of a listing, page by page."""
    items: list[Any] = []
    cursor = None
    while True:
        more: dict[str, str] = {"cursor": cursor} if cursor else {}
        answer = await api.get(f"{path}?{urlencode({**query, **more}, doseq=True)}")
        assert answer.status == 200, answer.body
        items += answer.json["items"]
        cursor = answer.json["next"]
        if cursor is None:
            return items
        assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)


async def test_pages_hold_everything_once_newest_first(api: Api) -> None:
    ids = [await create(api) for _ in range(7)]

    assert [item["id"] for item in await listed(api, limit=3)] == ids[::-1]
    assert [item["id"] for item in await listed(api, limit=7)] == ids[::-1]
    first = (await api.get("/notifications?limit=7")).json
    assert first["next"] is None


async def test_what_arrives_between_two_pages_disturbs_neither(api: Api) -> None:
    ids = [await create(api) for _ in range(4)]
    first = (await api.get("/notifications?limit=2")).json
    await create(api)

    second = (await api.get(f"/notifications?limit=2&cursor={first['next']}")).json

    assert [i["id"] for i in first["items"] + second["items"]] == ids[::-1]


async def test_each_filter_finds_what_fits(api: Api) -> None:
    await create(api)
    found = await create(
        api,
        source="shop",
        type="ORDER_DONE",
        title="100% off_er",
        tenant_id=5,
        deliveries=[{"channel": "LOG", "recipient": "lee"}],
    )

    for query in (
        {"source": "shop"},
        {"type": "ORDER_DONE"},
        {"channel": "log"},
        {"recipient": "lee"},
        {"recipient": "lee", "channel": "LOG"},
        {"tenant_id": "5"},
        {"q": "OFF_ER"},
        {"q": "100%"},
        {"q": "order_d"},
    ):
        assert [item["id"] for item in await listed(api, **query)] == [found], query
    for query in ({"recipient": "lee", "channel": "EMAIL"}, {"q": "off%er"}, {"source": "sho"}):
        assert await listed(api, **query) == []


async def test_a_range_of_time_includes_its_beginning_and_not_its_end(
    api: Api, database: Database
) -> None:
    ids = [await create(api) for _ in range(3)]
    at = [(await api.get(f"/notifications/{i}")).json["created_at"] for i in ids]

    assert [i["id"] for i in await listed(api, **{"from": at[1]})] == [ids[2], ids[1]]
    assert [i["id"] for i in await listed(api, **{"from": at[1], "to": at[2]})] == [ids[1]]
    assert await listed(api, to="1970-01-02T00:00:00Z") == []
    assert await listed(api, **{"from": "9999-12-31T23:59:59Z"}) == []
    assert len(await listed(api, **{"from": "0001-01-01T00:00:00Z"})) == 3


async def test_the_computed_status_can_be_asked_for(api: Api, database: Database) -> None:
    ids = {}
    for status, states in STATUSES.items():
        ids[status] = await create(api)
        deliveries = (await api.get(f"/notifications/{ids[status]}")).json["deliveries"]
        for delivery, state in zip(deliveries, states, strict=True):
            await database.fetch(
                "UPDATE delivery SET status = %(s)s WHERE id = %(id)s RETURNING id",
                {"s": state, "id": delivery["id"]},
            )

    for status, identity in ids.items():
        [item] = await listed(api, status=status)
        assert (item["id"], item["status"]) == (identity, status)
        assert (await api.get(f"/notifications/{identity}")).json["status"] == status
    both = await listed(api, status=["FAILED", "EXPIRED"])
    assert {item["id"] for item in both} == {ids["FAILED"], ids["EXPIRED"]}


async def test_a_status_is_found_beneath_any_number_of_others(api: Api, database: Database) -> None:
    rare = [await create(api) for _ in range(3)]
    await database.fetch("UPDATE delivery SET status = 'DEAD' RETURNING 1")
    await database.fetch(
        "WITH n AS (INSERT INTO notification (id, source, type) SELECT"
        "   ('ffffffff-ffff-7000-8000-' || lpad(i::text, 12, '0'))::uuid, 's', 't'"
        "   FROM generate_series(1, 3000) i RETURNING id)"
        " INSERT INTO delivery (notification_id, channel, max_attempts)"
        " SELECT id, 'LOG', 1 FROM n RETURNING 1"
    )

    page = (await api.get("/notifications?status=FAILED&limit=2")).json

    assert [item["id"] for item in page["items"]] == rare[:0:-1]
    assert [i["id"] for i in await listed(api, status="FAILED", limit=2)] == rare[::-1]


async def test_looking_for_a_rare_status_stays_bounded_and_resumes(
    api: Api, database: Database, monkeypatch: Any
) -> None:
    rare = await create(api)
    await database.fetch("UPDATE delivery SET status = 'SUCCESS' RETURNING 1")
    for _ in range(12):
        await create(api)
    monkeypatch.setattr("allim.hub.stepping.FIRST", 2)
    monkeypatch.setattr("allim.hub.stepping.MOST", 5)

    first = (await api.get("/notifications?status=COMPLETED&limit=1")).json

    assert first["items"] == []
    assert first["next"] is not None
    assert [i["id"] for i in await listed(api, status="COMPLETED", limit=1)] == [rare]


async def test_a_superseded_delivery_does_not_count(api: Api, database: Database) -> None:
    notification = await create(api)
    await database.fetch("UPDATE delivery SET status = 'SUCCESS' RETURNING 1")
    await database.fetch(
        "UPDATE delivery SET status = 'DEAD', superseded_by = 99"
        " WHERE id = (SELECT min(id) FROM delivery) RETURNING 1"
    )

    assert (await api.get(f"/notifications/{notification}")).json["status"] == "COMPLETED"


async def test_deliveries_carry_their_attempts(api: Api, database: Database) -> None:
    notification = await create(api, deliveries=[{"channel": "LOG"}])
    [delivery] = (await api.get(f"/notifications/{notification}")).json["deliveries"]
    await database.fetch(
        "INSERT INTO delivery_attempt (delivery_id, attempt_no, worker, outcome, http_status,"
        " error_code, response, finished_at) SELECT %(id)s, n, 'w', 'RETRY', 500, 'http_500',"
        " repeat('x', 5000), now() FROM generate_series(1, 2) n RETURNING 1",
        {"id": delivery["id"]},
    )

    whole = (await api.get(f"/deliveries/{delivery['id']}")).json
    listing = (await api.get(f"/deliveries?notification_id={notification}")).json["items"]

    assert [a["attempt_no"] for a in whole["attempts"]] == [1, 2]
    assert whole["attempts"][0]["error_code"] == "http_500"
    assert len(whole["attempts"][0]["response"]) == 5000
    assert len(listing[0]["attempts"][0]["response"]) == 2000


async def test_dead_letters_are_a_filter_of_deliveries(api: Api, database: Database) -> None:
    notification = await create(api)
    await create(api)
    await database.fetch(
        "UPDATE delivery SET status = 'DEAD', error_code = 'http_404', provider_id = 'G1',"
        " provider_message_id = 'M1'"
        " WHERE notification_id = %(id)s AND channel = 'EMAIL' RETURNING 1",
        {"id": notification},
    )

    for query in (
        {"status": "DEAD"},
        {"error_code": "http_404"},
        {"provider_id": "G1"},
        {"provider_message_id": "M1"},
        {"notification_id": notification, "channel": "email"},
    ):
        [found] = await listed(api, "/deliveries", **query)
        assert (found["notification_id"], found["channel"]) == (notification, "EMAIL")
    assert len(await listed(api, "/deliveries", limit=3, recipient="kim@example.com")) == 2
    assert len(await listed(api, "/deliveries", limit=1)) == 4


async def test_the_status_shown_agrees_with_the_deliveries_beside_it(
    api: Api, database: Database
) -> None:
    """One statement, one snapshot: never the status of one moment and rows of another."""
    assert SQL["one_notification"].count(";") == 0
    shown = await Reader(database).notification((await api.create()).json["id"])
    assert shown.status == "PENDING"
    assert len(shown.deliveries) == 2


async def test_a_recipient_is_found_by_index_whatever_its_delivery_does(
    api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status in ("PROCESSING", "SUCCESS"):
        await create(api, deliveries=[{"channel": "LOG", "recipient": "lee"}])
        await database.fetch(
            "UPDATE delivery SET status = %(s)s, claim_token = CASE %(s)s"
            " WHEN 'PROCESSING' THEN gen_random_uuid() END WHERE status = 'PENDING' RETURNING 1",
            {"s": status},
        )
    await database.fetch(
        "WITH n AS (INSERT INTO notification (id, source, type) SELECT gen_random_uuid(), 's', 't'"
        "   FROM generate_series(1, 20000) i RETURNING id)"
        " INSERT INTO delivery (notification_id, channel, max_attempts, recipient)"
        " SELECT id, 'LOG', 1, id::text FROM n RETURNING 1"
    )
    async with database.connection() as connection:
        await connection.execute("ANALYZE delivery")
        plan = await (
            await connection.execute(
                "EXPLAIN " + SQL["to_recipients"], {"recipients": ["lee"], "most": 100}
            )
        ).fetchall()

    assert len(await listed(api, recipient="lee")) == 2
    assert len(await listed(api, recipient="lee", channel="log")) == 2
    monkeypatch.setattr("allim.hub.reading._FEW", 1)
    assert len(await listed(api, recipient="lee", limit=1)) == 2
    assert len(await listed(api, "/deliveries", recipient="lee")) == 2
    assert "Seq Scan" not in str(plan)


async def test_a_small_tenants_deliveries_are_found_without_reading_everybodys(
    database: Database,
) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO delivery (notification_id, tenant_id, channel, status, max_attempts)"
            " SELECT gen_random_uuid(), 1 + (i = 1)::int, 'LOG', 'SUCCESS', 8"
            "   FROM generate_series(1, 20000) AS i"
        )
        await connection.execute("ANALYZE delivery")
        plan = await (
            await connection.execute(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT id FROM delivery d WHERE true "
                + SQL["delivery_tenant_id"]
                + " ORDER BY d.id DESC LIMIT 51",
                {"tenant_id": 2},
            )
        ).fetchone()

    assert plan is not None
    assert plan[0][0]["Plan"]["Shared Hit Blocks"] + plan[0][0]["Plan"]["Shared Read Blocks"] < 20


async def test_a_source_that_nobody_sends_from_costs_no_more_than_one_look_allows(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allim.hub.stepping.FIRST", 2)
    monkeypatch.setattr("allim.hub.stepping.MOST", 4)
    logged = [{"channel": "LOG", "recipient": "x"}]
    first = await create(api, source="rare", type="RARE", deliveries=logged)
    for _ in range(9):
        await create(api)

    answer = await api.get("/notifications?source=rare&limit=1")

    assert answer.json["items"] == []
    assert answer.json["next"] is not None
    assert [item["id"] for item in await listed(api, source="rare", limit=1)] == [first]
    assert [item["id"] for item in await listed(api, type="RARE", limit=1)] == [first]
    assert [item["id"] for item in await listed(api, channel="LOG", limit=1)] == [first]
