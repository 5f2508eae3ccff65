"""Creating notifications over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from allim.base.errors import Conflict, Overloaded
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.hub.coalescer import Coalescer, CoalescerLimits
from allim.hub.creation import Created, prepare
from allim.hub.model import NotificationRequest
from allim.hub.service import Hub
from tests.hub.conftest import NOTIFICATION, Api, Start, count


def with_delivery(**more: Any) -> dict[str, Any]:
    return {**NOTIFICATION, "deliveries": [{"channel": "LOG", "recipient": "ops", **more}]}


async def test_a_post_stores_the_notification_and_its_deliveries(
    api: Api, database: Database
) -> None:
    answer = await api.create()

    assert answer.status == 202
    created = answer.json
    assert answer.headers["Location"] == f"/notifications/{created['id']}"
    assert created["status"] == "PENDING"
    assert [(d["channel"], d["recipient"], d["status"]) for d in created["deliveries"]] == [
        ("EMAIL", "kim@example.com", "PENDING"),
        ("SLACK", None, "PENDING"),
    ]
    shown = (await api.get(answer.headers["Location"])).json
    assert shown["status"] == "PENDING"
    assert shown["created_at"] == created["created_at"]
    assert shown["data"] == {"order_id": "A-1024"}
    assert shown["title"] == "결제 실패"
    assert shown["priority"] == "normal"
    assert [d["id"] for d in shown["deliveries"]] == [d["id"] for d in created["deliveries"]]
    assert all(d["attempts"] == [] for d in shown["deliveries"])
    assert api.woken == [{"EMAIL", "SLACK"}]


async def test_channel_names_may_be_written_in_any_case(api: Api) -> None:
    answer = await api.create({**NOTIFICATION, "deliveries": [{"channel": "slack"}]})

    assert answer.json["deliveries"][0]["channel"] == "SLACK"


async def test_priority_schedule_and_expiry_reach_the_deliveries(
    api: Api, database: Database
) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    until = at + timedelta(hours=1)
    body = {
        **with_delivery(max_attempts=3),
        "priority": "high",
        "scheduled_at": at.isoformat(),
        "expires_at": until.astimezone().isoformat(),
        "tenant_id": 7,
    }

    assert (await api.create(body)).status == 202

    rows = await database.fetch(
        "SELECT status, priority, next_retry_at, expires_at, tenant_id, max_attempts FROM delivery"
    )
    assert rows == [("PENDING", 0, at, until, 7, 3)]


async def test_attempts_default_to_what_the_channel_says(api: Api, database: Database) -> None:
    await api.create(with_delivery())

    assert await database.fetch("SELECT max_attempts FROM delivery") == [(8,)]


async def test_the_same_key_and_body_get_the_first_answer(api: Api, database: Database) -> None:
    first = await api.create(Idempotency_Key="k-1")
    await database.fetch("UPDATE delivery SET status = 'SUCCESS' RETURNING id")
    second = await api.create(Idempotency_Key="k-1")

    assert (first.status, second.status) == (202, 202)
    assert second.body == first.body
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert await count(database, "notification") == 1


async def test_the_spelling_of_a_body_does_not_make_it_another(api: Api) -> None:
    moment = "2030-01-01T09:00:00+09:00"
    first = {**NOTIFICATION, "data": {"a": 1, "b": 2}, "scheduled_at": moment}
    second = {
        "scheduled_at": "2030-01-01T00:00:00Z",
        **NOTIFICATION,
        "data": {"b": 2, "a": 1},
        "priority": "normal",
    }
    await api.create(first, Idempotency_Key="k")

    again = await api.create(second, Idempotency_Key="k")

    assert again.headers.get("Idempotency-Replayed") == "true"


async def test_the_same_key_with_another_body_is_refused(api: Api, database: Database) -> None:
    await api.create(Idempotency_Key="k")

    answer = await api.create({**NOTIFICATION, "title": "other"}, Idempotency_Key="k")

    assert (answer.status, answer.json["code"]) == (422, "idempotency_mismatch")
    assert await count(database, "notification") == 1


async def test_concurrent_posts_with_one_key_create_once(
    start_api: Start, database: Database
) -> None:
    apis = [await start_api(), await start_api()]

    answers = await asyncio.gather(
        *(api.create(Idempotency_Key=f"k{n % 3}") for n in range(20) for api in apis)
    )

    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 3
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 3
    assert await count(database, "notification") == 3
    assert await count(database, "delivery") == 6


async def test_one_key_of_two_tenants_is_two_keys(api: Api) -> None:
    answers = [
        await api.create({**NOTIFICATION, "tenant_id": tenant}, Idempotency_Key="k")
        for tenant in (1, 2)
    ]

    assert answers[0].json["id"] != answers[1].json["id"]


async def test_a_failed_post_leaves_its_key_free(api: Api) -> None:
    await api.create(with_delivery(row_key="A"))
    conflicting = with_delivery(row_key="A")
    assert (await api.create(conflicting, Idempotency_Key="k")).status == 409

    answer = await api.create(with_delivery(row_key="B"), Idempotency_Key="k")

    assert answer.status == 202
    assert "Idempotency-Replayed" not in answer.headers


async def test_a_row_key_is_unique_per_tenant_and_channel(api: Api, database: Database) -> None:
    assert (await api.create(with_delivery(row_key="A-1"))).status == 202
    assert (await api.create({**with_delivery(row_key="A-1"), "tenant_id": 1})).status == 202

    answer = await api.create(
        {
            **NOTIFICATION,
            "deliveries": [
                {"channel": "LOG", "row_key": "A-2"},
                {"channel": "LOG", "row_key": "A-1"},
            ],
        }
    )

    assert (answer.status, answer.json["code"]) == (409, "row_key_taken")
    assert [e["place"] for e in answer.json["errors"]] == ["/deliveries/1/row_key"]
    assert await count(database, "notification") == 2


async def test_one_bad_request_does_not_spoil_those_beside_it(api: Api, database: Database) -> None:
    await api.create(with_delivery(row_key="taken"))

    answers = await asyncio.gather(
        *(
            api.create(with_delivery(row_key="taken" if n in (7, 23) else f"r{n}"))
            for n in range(40)
        )
    )

    statuses = [answer.status for answer in answers]
    assert [n for n, status in enumerate(statuses) if status == 409] == [7, 23]
    assert statuses.count(202) == 38
    assert await count(database, "notification") == 39


async def test_batches_with_crossing_row_keys_do_not_deadlock(
    start_api: Start, database: Database
) -> None:
    apis = [await start_api(), await start_api()]

    def crossing(n: int, turn: int) -> dict[str, Any]:
        entries = [{"channel": "LOG", "row_key": f"{n}-{at}"} for at in range(4)]
        return {**NOTIFICATION, "deliveries": entries[:: 1 if turn else -1]}

    answers = await asyncio.gather(
        *(
            api.create(crossing(n, (n + at) % 2), Idempotency_Key=f"{n}-{at}")
            for n in range(20)
            for at, api in enumerate(apis)
        )
    )

    assert sorted({answer.status for answer in answers}) == [202, 409]
    assert await count(database, "notification") == 20


async def test_requests_that_wait_together_share_a_transaction(
    api: Api, database: Database
) -> None:
    answers = await asyncio.gather(*(api.create() for _ in range(100)))

    assert len({answer.json["id"] for answer in answers}) == 100
    transactions = await database.fetch("SELECT count(DISTINCT xmin::text) FROM notification")
    assert transactions[0][0] < 60


async def test_a_client_that_goes_away_harms_nobody(api: Api, database: Database) -> None:
    tasks = [asyncio.create_task(api.create()) for _ in range(30)]
    await asyncio.sleep(0.01)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(not isinstance(a, BaseException) and a.status == 202 for a in answers[1::2])
    assert (await api.create()).status == 202


async def test_a_database_that_is_gone_is_told_and_survived(
    api: Api, database: Database, database_url: str, template_url: str
) -> None:
    await asyncio.gather(*(api.get("/notifications") for _ in range(20)), api.create())
    name = database_url.rpartition("/")[2].partition("?")[0]
    async with await psycopg.AsyncConnection.connect(template_url, autocommit=True) as other:
        # The next post meets connections that are dead, and then is stored all the same.
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        assert (await api.create(Idempotency_Key="k")).status == 202
        await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        answer = await api.create(Idempotency_Key="k2")
        assert (answer.status, answer.json["code"]) == (503, "database_unavailable")
        assert answer.headers["Retry-After"]
        await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert (await api.create(Idempotency_Key="k2")).status == 202


async def test_the_trace_of_the_caller_is_kept(api: Api) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    given = await api.create(traceparent=trace)
    broken = await api.create(traceparent="00-zz-1")

    assert (await api.get(given.headers["Location"])).json["traceparent"] == trace
    begun = (await api.get(broken.headers["Location"])).json["traceparent"]
    assert begun != "00-zz-1"
    assert len(begun) == 55


async def test_more_than_may_wait_is_turned_away_and_the_rest_is_stored(
    database: Database, channels: Mapping[str, Channel]
) -> None:
    request = NotificationRequest.model_validate(NOTIFICATION, strict=False)
    limits = CoalescerLimits(connections=1, batch=1, waiting=3)
    coalescer = Coalescer(database, limits=limits)

    results = await asyncio.gather(
        *(coalescer.store(prepare(request, channels)) for _ in range(10)), return_exceptions=True
    )
    await coalescer.close()

    assert sum(isinstance(result, Created) for result in results) == 3
    assert all(isinstance(r, Created | Overloaded) for r in results)
    assert Overloaded.status == 503
    assert await count(database, "notification") == 3
    with pytest.raises(Overloaded):
        await coalescer.store(prepare(request, channels))


async def test_a_key_in_somebodys_open_transaction_holds_up_nobody_else(
    database: Database, database_url: str, channels: Mapping[str, Channel]
) -> None:
    request = NotificationRequest.model_validate(NOTIFICATION, strict=False)
    limits = CoalescerLimits(connections=1, stuck=0.05, patience=30.0)
    coalescer = Coalescer(database, limits=limits)
    hub = Hub(channels)
    with psycopg.connect(database_url) as other:
        theirs = hub.notify(other, **NOTIFICATION, idempotency_key="taken")
        ours = asyncio.create_task(
            coalescer.store(prepare(request, channels, idempotency_key="taken"))
        )
        rest = await asyncio.gather(*(coalescer.store(prepare(request, channels)) for _ in "abc"))
        assert all(not each.replayed for each in rest)
        assert not ours.done()
        other.commit()

    assert (await ours).replayed
    assert (await ours).id == theirs.id
    await coalescer.close()


async def test_a_key_that_stays_in_an_open_transaction_is_a_conflict(
    database: Database, database_url: str, channels: Mapping[str, Channel]
) -> None:
    request = NotificationRequest.model_validate(NOTIFICATION, strict=False)
    coalescer = Coalescer(database, limits=CoalescerLimits(stuck=0.05, patience=0.05))
    with psycopg.connect(database_url) as other:
        Hub(channels).notify(other, **NOTIFICATION, idempotency_key="taken")
        with pytest.raises(Conflict, match="open transaction"):
            await coalescer.store(prepare(request, channels, idempotency_key="taken"))
        other.rollback()
    await coalescer.close()

    patient = Coalescer(database)
    stored = await patient.store(prepare(request, channels, idempotency_key="taken"))
    await patient.close()
    assert not stored.replayed
