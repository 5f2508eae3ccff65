"""Cancel, retry and discard."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from allim.database.pool import Database
from tests.hub.conftest import NOTIFICATION, Api

TWO = {**NOTIFICATION, "deliveries": [{"channel": "LOG"}, {"channel": "LOG"}]}


async def created(api: Api, body: Any = None) -> tuple[str, list[int]]:
    answer = (await api.create(body or TWO)).json
    api.woken.clear()
    return answer["id"], [d["id"] for d in answer["deliveries"]]


async def put(database: Database, delivery: int, status: str, **more: Any) -> None:
    more = {"status": status, "attempts": 1, **more}
    if status == "PROCESSING":
        more["claim_token"] = "00000000-0000-4000-8000-000000000000"
    columns = ", ".join(f"{name} = %({name})s" for name in more)
    await database.fetch(
        f"UPDATE delivery SET {columns} WHERE id = %(id)s RETURNING id", {**more, "id": delivery}
    )


async def child(database: Database, parent: int, step: str, status: str) -> int:
    rows = await database.fetch(
        "INSERT INTO delivery (notification_id, parent_id, step, channel, max_attempts, status,"
        " claim_token) SELECT notification_id, id, %(step)s, channel, 8, %(status)s,"
        " CASE %(status)s WHEN 'PROCESSING' THEN gen_random_uuid() END"
        " FROM delivery WHERE id = %(parent)s RETURNING id",
        {"step": step, "status": status, "parent": parent},
    )
    if step == "fallback":
        await put(database, parent, "DEAD", superseded_by=rows[0][0])
    return int(rows[0][0])


async def status_of(api: Api, delivery: int) -> str:
    return str((await api.get(f"/deliveries/{delivery}")).json["status"])


async def test_cancelling_takes_back_what_is_not_under_way(api: Api, database: Database) -> None:
    notification, [first, _] = await created(api)
    await put(database, first, "PROCESSING")

    answer = await api.post(f"/notifications/{notification}/cancel")

    assert answer.status == 200
    assert answer.json["canceled"] == 1
    assert [d["status"] for d in answer.json["deliveries"]] == ["PROCESSING", "CANCELED"]
    shown = (await api.get(f"/notifications/{notification}")).json
    assert shown["canceled_at"] is not None


async def test_cancelling_is_idempotent_once_all_is_cancelled(api: Api, database: Database) -> None:
    notification, [first, _] = await created(api)
    await put(database, first, "FAILED", next_retry_at="2099-01-01T00:00:00Z")
    await api.post(f"/notifications/{notification}/cancel")

    again = await api.post(f"/notifications/{notification}/cancel")

    assert (again.status, again.json["status"], again.json["canceled"]) == (200, "CANCELED", 0)


async def test_cancelling_too_late_says_so_and_changes_nothing(
    api: Api, database: Database
) -> None:
    notification, deliveries = await created(api)
    for delivery in deliveries:
        await put(database, delivery, "SUCCESS")

    answer = await api.post(f"/notifications/{notification}/cancel")

    assert (answer.status, answer.json["code"]) == (409, "too_late")
    assert (await api.get(f"/notifications/{notification}")).json["canceled_at"] is None


async def test_cancelling_waits_for_a_settle_and_sees_what_it_brought(
    api: Api, database: Database, database_url: str
) -> None:
    notification, [first, second] = await created(api)
    await put(database, second, "SUCCESS")
    async with await psycopg.AsyncConnection.connect(database_url) as settling:
        # As settling does: the notification is shared, then a child is born.
        await settling.execute("SELECT FROM notification WHERE id = %s FOR SHARE", [notification])
        cancel = asyncio.create_task(api.post(f"/notifications/{notification}/cancel"))
        await waiting_for_a_lock(database)
        await settling.execute("UPDATE delivery SET status = 'SUCCESS' WHERE id = %s", [first])
        await settling.execute(
            "INSERT INTO delivery (notification_id, parent_id, step, channel, max_attempts)"
            " VALUES (%s, %s, 'then', 'LOG', 8)",
            [notification, first],
        )
    answer = await cancel

    assert answer.json["canceled"] == 1
    assert [d["status"] for d in answer.json["deliveries"]] == ["SUCCESS", "SUCCESS", "CANCELED"]


async def waiting_for_a_lock(database: Database) -> None:
    async with asyncio.timeout(10):
        while not await database.fetch("SELECT FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)


async def test_a_replay_begins_anew_with_nothing_of_the_old_attempt(
    api: Api, database: Database
) -> None:
    for status in ("DEAD", "SKIPPED", "HELD"):
        _, [delivery, _] = await created(api)
        await put(
            database,
            delivery,
            status,
            attempts=8,
            retry_count=8,
            rescue_count=2,
            provider_id="G1",
            provider_message_id="M1",
            receipt_status="FAILED",
            error_code="http_500",
            last_error="x",
        )

        answer = await api.post(f"/deliveries/{delivery}/retry")

        assert answer.status == 200
        shown = answer.json
        assert (shown["status"], shown["retry_count"], shown["attempt_count"]) == ("PENDING", 0, 8)
        assert shown["next_retry_at"] is not None
        for name in ("provider_id", "provider_message_id", "receipt_status", "error_code"):
            assert shown[name] is None
        assert shown["rescue_count"] == 0
        assert api.woken == [{"LOG"}]


async def test_a_failed_delivery_is_retried_now(api: Api, database: Database) -> None:
    _, [delivery, _] = await created(api)
    await put(database, delivery, "FAILED", retry_count=3, next_retry_at="2099-01-01T00:00:00Z")

    shown = (await api.post(f"/deliveries/{delivery}/retry")).json

    assert (shown["status"], shown["retry_count"]) == ("FAILED", 3)
    assert shown["next_retry_at"] < "2099"


async def test_what_is_under_way_or_done_is_not_retried(api: Api, database: Database) -> None:
    for status in ("PENDING", "PROCESSING", "SUCCESS", "ACCEPTED", "CANCELED", "EXPIRED"):
        _, [delivery, _] = await created(api)
        await put(database, delivery, status)

        answer = await api.post(f"/deliveries/{delivery}/retry")

        assert (answer.status, answer.json["code"]) == (409, "not_retryable")
        assert answer.json["detail"] == (
            f"delivery {delivery} is {status}; only what is DEAD, FAILED, HELD, SKIPPED can be"
            " retried"
        )


async def test_nothing_of_a_cancelled_or_expired_notification_is_retried(
    api: Api, database: Database
) -> None:
    _, [first, second] = await created(api)
    await put(database, first, "DEAD", expires_at="2020-01-01T00:00:00Z")
    assert (await api.post(f"/deliveries/{first}/retry")).json["code"] == "expired"
    await put(database, second, "DEAD")
    await database.fetch("UPDATE notification SET canceled_at = now() RETURNING id")

    answer = await api.post(f"/deliveries/{second}/retry")

    assert (answer.status, answer.json["code"]) == (409, "canceled")


async def test_a_delivery_whose_fallback_may_succeed_is_not_retried(
    api: Api, database: Database
) -> None:
    for status in ("PENDING", "PROCESSING", "SUCCESS", "ACCEPTED", "FAILED", "HELD"):
        _, [delivery, _] = await created(api)
        await child(database, delivery, "fallback", status)

        answer = await api.post(f"/deliveries/{delivery}/retry")

        assert (answer.status, answer.json["code"]) == (409, "superseded")
        assert await status_of(api, delivery) == "DEAD"


async def test_a_grandchild_counts_too(api: Api, database: Database) -> None:
    _, [delivery, _] = await created(api)
    first = await child(database, delivery, "fallback", "DEAD")
    await child(database, first, "fallback", "SUCCESS")

    assert (await api.post(f"/deliveries/{delivery}/retry")).status == 409


async def test_a_replayed_parent_speaks_for_its_dead_fallbacks(
    api: Api, database: Database
) -> None:
    notification, [delivery, other] = await created(api)
    await put(database, other, "SUCCESS")
    fallback = await child(database, delivery, "fallback", "DEAD")
    last = await child(database, fallback, "fallback", "DEAD")
    path = f"/notifications/{notification}"
    assert (await api.get(path)).json["status"] == "PARTIALLY_FAILED"

    assert (await api.post(f"/deliveries/{delivery}/retry")).status == 200

    shown = {d["id"]: d for d in (await api.get(path)).json["deliveries"]}
    assert shown[delivery]["superseded_by"] is None
    assert shown[fallback]["superseded_by"] == shown[last]["superseded_by"] == delivery
    answer = await api.post(f"/deliveries/{last}/retry")
    assert (answer.status, answer.json["code"]) == (409, "superseded")
    await put(database, delivery, "SUCCESS")
    assert (await api.get(path)).json["status"] == "COMPLETED"


async def test_the_last_of_a_chain_is_retried_by_itself(api: Api, database: Database) -> None:
    _, [delivery, _] = await created(api)
    fallback = await child(database, delivery, "fallback", "DEAD")

    assert (await api.post(f"/deliveries/{fallback}/retry")).status == 200
    assert (await api.post(f"/deliveries/{delivery}/retry")).json["code"] == "superseded"


async def test_concurrent_retries_of_one_branch_let_one_through(
    api: Api, database: Database
) -> None:
    _, [delivery, _] = await created(api)
    fallback = await child(database, delivery, "fallback", "DEAD")

    answers = await asyncio.gather(
        *(api.post(f"/deliveries/{d}/retry") for d in (delivery, fallback) * 5)
    )

    assert sorted(answer.status for answer in answers) == [200] + [409] * 9


async def test_discarding_ends_a_dead_letter(api: Api, database: Database) -> None:
    for status in ("DEAD", "SKIPPED", "HELD"):
        notification, [delivery, other] = await created(api)
        await put(database, other, "SUCCESS")
        await put(database, delivery, status)

        answer = await api.post(f"/deliveries/{delivery}/discard", json={"reason": "known"})

        assert (answer.status, answer.json["status"]) == (200, "CANCELED")
        assert (answer.json["error_code"], answer.json["last_error"]) == ("discarded", "known")
        shown = (await api.get(f"/notifications/{notification}")).json
        assert shown["status"] == "PARTIALLY_FAILED"
        again = await api.post(f"/deliveries/{delivery}/discard", json={"reason": "known"})
        assert (again.status, again.json["code"]) == (409, "not_discardable")


async def test_discarding_needs_a_reason(api: Api, database: Database) -> None:
    _, [delivery, _] = await created(api)
    await put(database, delivery, "DEAD")

    answer = await api.post(f"/deliveries/{delivery}/discard", json={"reason": ""})

    assert (answer.status, answer.json["errors"][0]["place"]) == (422, "/reason")
