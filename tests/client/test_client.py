"""The client of the API against the API itself, with and without asyncio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from allim.client import ApiError, AsyncClient, Client, ClientError, Retrying, Unreachable
from allim.database.pool import Database
from allim.testing.http import Answer, HttpSink
from tests.hub.conftest import NOTIFICATION, Api, Start, api, channels, count, start_api
from tests.hub.test_operations import put

__all__ = ["api", "channels", "start_api"]

FAST = Retrying(base=0.001, jitter=lambda: 1.0)
LOG = {**NOTIFICATION, "deliveries": [{"channel": "LOG", "recipient": "ops"}]}
MADE = {
    "id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "status": "PENDING",
    "created_at": "2026-11-21T00:00:00Z",
    "deliveries": [],
}

Do = Callable[..., Awaitable[Any]]
Connect = Callable[..., Do]


@pytest.fixture(params=["sync", "async"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Makes clients of one kind; `do("notify", …)` calls a method and lists what it yields."""
    opened: list[Client | AsyncClient] = []

    def make(url: str, **options: Any) -> Do:
        options = {"retrying": FAST, **options}
        client = (Client if request.param == "sync" else AsyncClient)(url, **options)
        opened.append(client)

        def called(name: str, *given: Any, **named: Any) -> Any:
            result = getattr(client, name)(*given, **named)
            return list(result) if isinstance(result, Iterator) else result

        async def do(name: str, *given: Any, **named: Any) -> Any:
            if isinstance(client, Client):
                return await asyncio.to_thread(called, name, *given, **named)
            result = called(name, *given, **named)
            if isinstance(result, AsyncIterator):
                return [item async for item in result]
            return await result

        return do

    yield make
    for client in opened:
        if isinstance(client, Client):
            client.close()
        else:
            await client.close()


async def test_a_notification_is_made_looked_at_and_cancelled(connect: Connect, api: Api) -> None:
    do = connect(api.url)

    made = await do("notify", **LOG)
    shown = await do("notification", made.id)
    cancelled = await do("cancel", made.id)

    assert [(d.channel, d.recipient) for d in made.deliveries] == [("LOG", "ops")]
    assert (shown.id, shown.status, shown.data) == (made.id, "PENDING", NOTIFICATION["data"])
    assert cancelled.status == "CANCELED"
    assert (await do("delivery", made.deliveries[0].id)).status == "CANCELED"


async def test_the_same_key_makes_it_once(connect: Connect, api: Api, database: Database) -> None:
    do = connect(api.url)

    first = await do("notify", **LOG, idempotency_key="order-1")
    second = await do("notify", **LOG, idempotency_key="order-1")

    assert (first.id, first.replayed) == (second.id, False)
    assert second.replayed
    with pytest.raises(ApiError) as refused:
        await do("notify", **{**LOG, "type": "OTHER"}, idempotency_key="order-1")
    assert refused.value.code == "idempotency_mismatch"
    assert await count(database, "notification") == 1


async def test_listings_fetch_page_after_page(connect: Connect, api: Api) -> None:
    do = connect(api.url)
    results = (await do("bulk", [LOG] * 300)).results
    assert {result.status for result in results} == {202}

    listed = await do("notifications", recipient="ops")
    deliveries = await do("deliveries", status=["PENDING"], channel="LOG")

    assert len({item.id for item in listed}) == 300
    assert len({item.id for item in deliveries}) == 300
    assert await do("notifications", recipient="nobody") == []


async def test_dead_letters_are_retried_discarded_and_replayed(
    connect: Connect, api: Api, database: Database
) -> None:
    do = connect(api.url)
    ids = [(await do("notify", **LOG)).deliveries[0].id for _ in range(3)]
    for one in ids:
        await put(database, one, "DEAD", error_code="http_500")

    assert (await do("retry", ids[0])).status == "PENDING"
    assert (await do("discard", ids[1], reason="too late")).status == "CANCELED"
    assert (await do("count_replay", error_code="http_500")).total == 1
    job = await do("replay", error_code="http_500", rate_per_second=5, reason="it is back")

    assert (job.total, job.rate_per_second) == (1, 5)
    assert (await do("show_replay", job.id)).status == "RUNNING"


async def test_what_is_refused_names_every_field(connect: Connect, api: Api) -> None:
    do = connect(api.url)

    with pytest.raises(ApiError) as refused:
        await do("notify", source="", type="T", deliveries=[{"channel": "SMOKE"}])

    assert refused.value.status == 422
    assert {p.place for p in refused.value.problems} == {"/source", "/deliveries/0/channel"} or {
        p.place for p in refused.value.problems
    } == {"/source"}


async def test_a_key_is_sent(connect: Connect, start_api: Start) -> None:
    api = await start_api(ALLIM_API_KEYS="shop:0123456789abcdef0123:send")

    made = await connect(api.url, key="0123456789abcdef0123")("notify", **LOG)
    with pytest.raises(ApiError) as refused:
        await connect(api.url)("notify", **LOG)

    assert made.status == "PENDING"
    assert (refused.value.status, refused.value.code) == (401, "unauthenticated")


@pytest.mark.parametrize(
    "trouble",
    [Answer.of(503, headers={"Retry-After": "0"}), Answer.of(429), Answer.cut(b"HTTP/1.1 202 ")],
)
async def test_a_notification_is_sent_again_with_the_same_key(
    connect: Connect, trouble: Answer
) -> None:
    async with HttpSink() as server:
        server.answer(trouble, Answer.of(202, json.dumps(MADE)))

        made = await connect(server.url)("notify", **LOG)

    assert str(made.id) == MADE["id"]
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert (len(server.requests), len(keys)) == (2, 1)


async def test_what_must_not_be_repeated_is_not(connect: Connect) -> None:
    async with HttpSink() as server:
        do = connect(server.url)
        server.answer(Answer.cut(b"HTTP/1.1 200 "))
        with pytest.raises(Unreachable, match="tried 1 times"):
            await do("retry", 1)
        server.answer(Answer.of(503))
        with pytest.raises(ApiError):
            await do("retry", 1)

    assert len(server.requests) == 2


async def test_who_cannot_be_reached_is_said_after_some_tries(connect: Connect) -> None:
    async with HttpSink() as server:
        url = server.url

    with pytest.raises(Unreachable, match="tried 4 times"):
        await connect(url)("notify", **LOG)


async def test_an_answer_that_is_no_problem_document_is_told_by_its_status(
    connect: Connect,
) -> None:
    async with HttpSink() as server:
        server.answer(Answer.of(404, "<html>"))
        with pytest.raises(ApiError) as refused:
            await connect(server.url)("notification", "x/../y")

    assert (refused.value.status, refused.value.code) == (404, "http_404")
    assert server.requests[0].path == "/notifications/x%2F..%2Fy"


async def test_a_kept_connection_that_was_closed_is_no_failure(connect: Connect) -> None:
    body = json.dumps(MADE)
    async with HttpSink() as server:
        do = connect(server.url, retrying=Retrying(attempts=2, base=0.001))
        whole = Answer.of(202, body)
        server.answer(Answer.cut(whole.wire), whole)
        await do("notify", **LOG)
        await do("notify", **LOG)

    assert len(server.requests) == 2


def test_what_is_no_url_is_said_at_once() -> None:
    with pytest.raises(ClientError, match="http://"):
        Client("localhost:18080")
