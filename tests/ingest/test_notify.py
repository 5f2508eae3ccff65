"""/notify, as clients of Apprise's API call it, and as Apprise itself does."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from allim.database.pool import Database
from tests.hub.conftest import Api, count
from tests.ingest.conftest import TakeRoutes, recipients, route, told
from tests.requirements import needs_module

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
KEY = "a-very-long-secret-1"
BEARER = {"Authorization": f"Bearer {KEY}"}


async def ok(api: Api, path: str = "/notify/ops", **more: Any) -> None:
    answer = await api.post(path, **more)
    assert answer.status == 200, answer.body
    assert answer.json["error"] is None
    assert answer.json["notifications"]


async def test_json_and_forms_are_taken_and_go_by_type_and_tags(
    with_routes: TakeRoutes,
) -> None:
    api = await with_routes(
        route("others"),
        route("pager", "type=failure", key="ops", **{"continue": True}),
        route("dev", "tag=dev", key="ops"),
        route("ops", "tag!=nobody", key="ops"),
    )
    await ok(api, json={"title": "백업", "body": "끝났습니다", "type": "success"})
    await ok(api, json={"body": "disk", "type": "failure", "tags": "dev, web"})
    await ok(api, json={"body": "x", "tag": ["a", "dev"], "format": None, "version": "1.0"})
    await ok(api, "/notify/ops/", data=urlencode({"body": "폼", "tag": "dev"}), headers=FORM)
    await ok(api, "/notify", json={"body": "h"}, headers={"X-Apprise-Config-ID": "ops"})
    nobody = await api.post("/notify/ops", json={"body": "x", "tag": "nobody"})
    assert (nobody.status, nobody.json["code"]) == (424, "no_route")

    found = await told(api)
    assert [(each["message"], each["type"], recipients(each)) for each in found] == [
        ("끝났습니다", "NOTIFY_SUCCESS", ["ops"]),
        ("disk", "NOTIFY_FAILURE", ["pager"]),
        ("disk", "NOTIFY_FAILURE", ["dev"]),
        ("x", "NOTIFY_INFO", ["dev"]),
        ("폼", "NOTIFY_INFO", ["dev"]),
        ("h", "NOTIFY_INFO", ["ops"]),
    ]
    assert found[0]["title"] == "백업"
    assert found[1]["data"] == {"key": "ops", "type": "failure", "tags": ["dev", "web"]}


async def test_html_is_html_in_mail_and_words_elsewhere(
    with_routes: TakeRoutes, database: Database
) -> None:
    mail = {"channel": "EMAIL", "recipient": "ops@example.com"}
    api = await with_routes(route("ops", key="ops", deliveries=[mail, {"channel": "LOG"}]))
    html = "<style>p {}</style><h1>백업</h1><p>다 &amp; <b>끝</b>났습니다</p>"

    await ok(api, json={"title": "t", "body": html, "format": "html"})

    rows = await database.fetch("SELECT payload FROM delivery ORDER BY id")
    assert [row[0] for row in rows] == [{"html": html}, {}]
    assert (await told(api))[0]["message"] == "백업\n다 & 끝났습니다"


async def test_what_cannot_be_taken_is_told_apart(
    with_routes: TakeRoutes, database: Database
) -> None:
    api = await with_routes(route("ops", key="ops"))
    json_type = {"Content-Type": "application/json"}
    for path, headers, body, status, place in (
        ("/notify/other", json_type, '{"body": "x"}', 404, None),
        ("/notify", json_type, '{"body": "x"}', 422, "X-Apprise-Config-ID"),
        ("/notify/ops", {"Content-Type": "text/plain"}, "x", 415, None),
        ("/notify/ops", json_type, "{", 400, None),
        ("/notify/ops", json_type, "[]", 422, ""),
        ("/notify/ops", json_type, "{}", 422, "/body"),
        ("/notify/ops", json_type, '{"body": ""}', 422, "/body"),
        ("/notify/ops", json_type, '{"body": "x", "type": "panic"}', 422, "/type"),
        ("/notify/ops", json_type, '{"body": "x", "tag": 5}', 422, "/tag"),
        ("/notify/ops", json_type, '{"body": "x", "urls": "json://h"}', 422, "/urls"),
        ("/notify/ops", json_type, '{"body": "x", "attachments": [{}]}', 422, "/attachments"),
        ("/notify/ops", FORM, "title=x", 422, "/body"),
        ("/notify/ops", FORM, b"body=\xff", 400, None),
    ):
        answer = await api.post(path, data=body, headers=headers)
        assert answer.status == status, (body, answer.body)
        if place is not None:
            assert place in [each["place"] for each in answer.json["errors"]], answer.body
    assert await count(database, "notification") == 0


async def test_a_route_that_cannot_carry_it_stops_no_other(
    with_routes: TakeRoutes, database: Database
) -> None:
    text = [{"channel": "SMS", "recipient": "01012345678"}]
    more = {"continue": True, "key": "ops"}
    api = await with_routes(
        route("texts", "tag!=log", deliveries=text, **more),
        route("log", "tag=log", **more),
        route("both", "tag=both", deliveries=text, **more),
    )
    # An advertisement, for which nothing is set up.
    body = {"body": "(광고) 가을 할인"}
    for tags, stored in (([], 0), (["log", "both"], 1)):
        answer = await api.post("/notify/ops", json=body | {"tag": tags})
        assert answer.status == 422
        (problem,) = answer.json["errors"]
        assert problem["code"] == "advertising_not_set_up"
        assert problem["message"].startswith("(in the route '")
        assert await count(database, "notification") == stored


async def test_an_idempotency_key_is_heeded(with_routes: TakeRoutes, database: Database) -> None:
    api = await with_routes(route("ops", key="ops"))
    once = {"Idempotency-Key": "backup-1"}
    await ok(api, json={"body": "x"}, headers=once)
    await ok(api, json={"body": "x"}, headers=once)
    other = await api.post("/notify/ops", json={"body": "y"}, headers=once)
    assert (other.status, other.json["code"]) == (422, "idempotency_mismatch")
    assert await count(database, "notification") == 1


# Apprise imports a module that Python is about to drop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_real_apprise_is_understood(with_routes: TakeRoutes) -> None:
    apprise = needs_module("apprise")
    api = await with_routes(route("ops", key="ops"), ALLIM_API_KEYS=f"shop:{KEY}:send+read")
    place = urlsplit(api.url).netloc
    body = json.dumps({"quote": '"'})

    async def notify(url: str, **more: Any) -> bool:
        client = apprise.Apprise()
        assert client.add(url), url
        sent: bool = await client.async_notify(
            title="백업", body=body, notify_type=apprise.NotifyType.WARNING, **more
        )
        return sent

    # By its own name: with the key in the header, in the path, and as a form.
    assert await notify(f"apprise://:{KEY}@{place}/ops/?tags=dev")
    assert await notify(f"apprise://user:{KEY}@{place}/ops/?version=1")
    assert await notify(f"apprise://:{KEY}@{place}/ops/?method=form&tags=a,b", body_format="html")
    assert await notify(f"apprise://{place}/ops/?+Authorization=Bearer%20{KEY}")
    # And as its plain JSON, where the body is called the message.
    assert await notify(f"json://user:{KEY}@{place}/notify/ops")
    assert not await notify(f"apprise://{place}/ops/"), "without a key"
    assert not await notify(f"apprise://:{KEY}@{place}/nobody/"), "a key of no route"

    found = await told(api, **BEARER)
    assert [(each["title"], each["message"], each["type"]) for each in found] == [
        ("백업", body, "NOTIFY_WARNING")
    ] * 5
    assert [sorted(each["data"]["tags"]) for each in found] == [["dev"], [], ["a", "b"], [], []]
