"""Webhook targets: secrets that rotate, and targets that are gone."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from uuid import UUID, uuid4

import aiohttp
import pytest

from allim.app import create_app
from allim.base.settings import Environment
from allim.channels.channel import Message
from allim.database.pool import Database
from allim.hub.endpoints import DisabledTargets, EndpointBook
from allim.relay.outcomes import Outcome
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import Settlement, decide
from allim.relay.work import Work
from tests.foundations import open_channels
from tests.hub.conftest import Api
from tests.serving import serving

URL = "https://example.com/hook"


def work(identity: int, recipient: str | None = URL, tenant: int | None = None) -> Work[Message]:
    message = Message(
        delivery_id=identity,
        notification_id=UUID(int=identity),
        channel="WEBHOOK",
        recipient=recipient,
        title=None,
        message=None,
        type="t",
        source="s",
        data={},
        payload={},
        created_at=datetime.now(UTC),
        tenant_id=tenant,
    )
    return Work(identity, str(uuid4()), 1, 0, 8, 0, 0.0, message)


def own_target(message: Message) -> str:
    return "hooks.example#1"


def gone(of: Work[Message]) -> Settlement[Message]:
    outcome = Outcome.refused("http_410", "it is\0 gone", disable_target=True)
    return decide(of, outcome, RetryPolicy())


async def test_a_secret_is_shown_once_and_signs(api: Api, database: Database) -> None:
    answer = await api.post("/endpoints", json={"url": URL})

    assert answer.status == 201
    secret = answer.json["secret"]
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
    listed = (await api.get("/endpoints")).json["items"]
    assert [e["url"] for e in listed] == [URL]
    assert "secret" not in listed[0]
    assert list(await EndpointBook(database).secrets_for(None, URL)) == [secret]
    assert list(await EndpointBook(database).secrets_for(1, URL)) == []
    again = await api.post("/endpoints", json={"url": URL})
    assert (again.status, again.json["code"]) == (409, "endpoint_exists")


async def test_while_a_secret_rotates_the_old_one_signs_beside_it(
    api: Api, database: Database
) -> None:
    first = (await api.post("/endpoints", json={"url": URL})).json
    path = f"/endpoints/{first['id']}"

    async def secrets() -> list[str]:
        return list(await EndpointBook(database).secrets_for(None, URL))

    second = (await api.post(f"{path}/rotate")).json["secret"]
    assert await secrets() == [second, first["secret"]]
    third = (await api.post(f"{path}/rotate")).json["secret"]
    assert await secrets() == [third, second]
    assert (await api.post(f"{path}/retire")).json["secrets"] == 1
    assert await secrets() == [third]


async def test_only_web_addresses_become_endpoints(api: Api) -> None:
    for url in ("ftp://example.com", "https://", "no url", "https://a\nb", "http://[::1"):
        answer = await api.post("/endpoints", json={"url": url})
        assert (answer.status, answer.json["errors"][0]["place"]) == (422, "/url")


@pytest.mark.parametrize(
    ("body", "place", "code"),
    [
        ({"url": "https://user:pw@example.com/"}, "/url", "invalid_url"),
        ({"url": "http://10.0.0.1/x"}, "/url", "invalid_url"),
        ({"url": "http://a..b/"}, "/url", "invalid_url"),
        ({"url": URL, "channel": "PIGEON"}, "/channel", "unknown_channel"),
        ({"url": URL, "channel": "LOG"}, "/channel", "not_signed"),
    ],
)
async def test_what_no_delivery_can_go_to_becomes_no_endpoint(
    api: Api, body: dict[str, str], place: str, code: str
) -> None:
    answer = await api.post("/endpoints", json=body)

    assert (answer.status, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert [(e["place"], e["code"]) for e in answer.json["errors"]] == [(place, code)]
    assert (await api.get("/endpoints")).json["items"] == []


async def test_the_operator_may_let_an_inner_target_become_an_endpoint(
    database: Database,
) -> None:
    inner = Environment({"ALLIM_SSRF_ALLOW": "10.0.0.0/8"})
    async with (
        open_channels(inner) as channels,
        serving(create_app(database, channels, inner)) as url,
        aiohttp.ClientSession() as session,
    ):
        api = Api(url, session, [])
        assert (await api.post("/endpoints", json={"url": "http://10.0.0.1/x"})).status == 201


async def test_a_target_that_is_gone_is_refused_until_it_is_enabled(
    api: Api, database: Database
) -> None:
    book = EndpointBook(database)
    policy = DisabledTargets(book, own_target)
    assert await policy.guard([work(1)]) == {}
    async with database.transaction() as tx:
        await policy.on_settle(tx, [gone(work(1)), gone(work(2)), gone(work(3, None, 5))])

    against = await policy.guard([work(4), work(5, tenant=1), work(6, "https://b.example")])

    assert set(against) == {4}
    assert against[4].code == "endpoint_disabled"
    assert set(await policy.guard([work(7, None), work(8, None, 1)])) == {7, 8}
    listed = (await api.get("/endpoints")).json["items"]
    assert {(e["url"], e["disabled_reason"]) for e in listed} == {
        ("hooks.example#1", "it is gone"),
        (URL, "it is gone"),
    }
    [endpoint] = [e for e in listed if e["url"] == URL]
    enabled = (await api.post(f"/endpoints/{endpoint['id']}/enable")).json
    assert enabled["disabled_at"] is None
    assert await DisabledTargets(EndpointBook(database), own_target).guard([work(4)]) == {}
    # With another URL in the settings it is another target.
    moved = DisabledTargets(book, lambda message: "hooks.example#2")
    assert await moved.guard([work(9, None)]) == {}
    # It had a row but no secret; it may still be given one.
    assert (await api.post("/endpoints", json={"url": URL})).status == 201


async def test_disabling_is_undone_with_the_settling_transaction(database: Database) -> None:
    policy = DisabledTargets(EndpointBook(database), own_target)
    try:
        async with database.transaction() as tx:
            await policy.on_settle(tx, [gone(work(1))])
            raise InterruptedError
    except InterruptedError:
        pass

    assert await policy.guard([work(2)]) == {}


async def test_what_is_known_is_read_again_after_seconds(database: Database) -> None:
    now = [0.0]
    book = EndpointBook(database, clock=lambda: now[0])
    assert list(await book.secrets_for(None, URL)) == []
    created = await EndpointBook(database).create(URL)

    assert list(await book.secrets_for(None, URL)) == []
    now[0] += 5
    assert list(await book.secrets_for(None, URL)) == [created.secret]
