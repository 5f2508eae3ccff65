"""Who may ask for what."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.database.migrate import migrations
from allim.database.pool import Database
from allim.web.access import AccessScope, Principal, refuse_open_bind
from allim.web.keys import create_key, keys_exist, list_keys, read_keys, revoke_key
from tests.hub.conftest import NOTIFICATION, Answer, Api, Start, count

SEND = "send-secret-0123456789"
READ = "read-secret-0123456789"
ADMIN = "admin-secret-0123456789"
OPERATE = "operate-secret-0123456789"
TENANT = "tenant-secret-0123456789"
KEYS = (
    f"sender:{SEND}:send,reader:{READ}:read,boss:{ADMIN}:admin,ops:{OPERATE}:operate,"
    f"shop:{TENANT}:send+operate:5"
)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def as_(api: Api, token: str, method: str, path: str, **more: Any) -> Answer:
    return await api.call(method, path, headers=bearer(token), **more)


@pytest.fixture
async def guarded(start_api: Start) -> Api:
    return await start_api(ALLIM_API_KEYS=KEYS)


async def test_without_any_key_everybody_is_answered(api: Api) -> None:
    assert (await api.create()).status == 202


async def test_who_has_no_key_or_a_wrong_one_is_told_what_is_needed(guarded: Api) -> None:
    without = await guarded.call("GET", "/notifications")
    assert "`Authorization: Bearer <token>`" in without.json["detail"]
    wrong = await guarded.call("GET", "/notifications", headers=bearer("wrong"))
    assert wrong.json["detail"] == "the API key is not known, or was revoked"


async def test_once_a_key_exists_every_route_needs_one(guarded: Api, database: Database) -> None:
    for method, path in [
        ("POST", "/notifications"),
        ("GET", "/notifications"),
        ("GET", "/deliveries/1"),
        ("POST", "/deliveries/1/retry"),
        ("GET", "/endpoints"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
    ]:
        for headers in ({}, bearer("wrong"), {"Authorization": f"Basic {ADMIN}"}):
            answer = await guarded.call(method, path, headers=headers)
            assert (answer.status, answer.json["code"]) == (401, "unauthenticated"), path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert await count(database, "notification") == 0


async def test_a_job_is_refused_in_the_jobs_own_shape_at_the_door_too(guarded: Api) -> None:
    answer = await guarded.call("POST", "/jobs/outbox/dispatch")

    assert answer.status == 401
    assert answer.json["ok"] is False
    assert "`Authorization: Bearer <token>`" in answer.json["error"]
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_the_bare_address_leads_to_the_console(guarded: Api) -> None:
    answer = await guarded.call("GET", "/", allow_redirects=False)

    assert (answer.status, answer.headers["Location"]) == (307, "console/")


async def test_health_needs_no_key(guarded: Api) -> None:
    assert (await guarded.get("/health/live")).status == 200
    newest = migrations()[-1].number
    assert (await guarded.get("/health/ready")).json == {"status": "ready", "schema": newest}


async def test_a_missing_scope_is_named(guarded: Api) -> None:
    for token, method, path, scope in [
        (READ, "POST", "/notifications", "send"),
        (SEND, "GET", "/notifications", "read"),
        (READ, "POST", "/deliveries/1/retry", "operate"),
        (OPERATE, "POST", "/notifications", "send"),
        (SEND, "GET", "/metrics", "read"),
    ]:
        answer = await as_(guarded, token, method, path)
        assert (answer.status, answer.json["code"]) == (403, "missing_scope")
        assert f"'{scope}'" in answer.json["detail"]


async def test_scopes_imply_what_they_should(guarded: Api) -> None:
    assert (await as_(guarded, OPERATE, "GET", "/notifications")).status == 200
    assert (await as_(guarded, ADMIN, "POST", "/notifications", json=NOTIFICATION)).status == 202
    assert (await as_(guarded, ADMIN, "GET", "/endpoints")).status == 200


async def test_who_may_send_and_who_may_operate_may_cancel_as_in_the_console(guarded: Api) -> None:
    for token in (SEND, OPERATE, ADMIN):
        later = {**NOTIFICATION, "scheduled_at": "2090-01-01T00:00:00Z"}
        made = (await as_(guarded, SEND, "POST", "/notifications", json=later)).json
        answer = await as_(guarded, token, "POST", f"/notifications/{made['id']}/cancel")
        assert (answer.status, answer.json["status"]) == (200, "CANCELED")
    refused = await as_(guarded, READ, "POST", f"/notifications/{made['id']}/cancel")
    assert (refused.status, refused.json["code"]) == (403, "missing_scope")
    assert "'send' or 'operate'" in refused.json["detail"]


async def test_every_key_may_read_the_description_which_holds_no_secret(guarded: Api) -> None:
    for token in (SEND, READ, TENANT):
        for path in ("/docs", "/openapi.json"):
            answer = await as_(guarded, token, "GET", path)
            assert answer.status == 200
            assert b"0123456789" not in answer.body


async def test_a_tenants_key_sees_and_sends_for_its_tenant_only(
    guarded: Api, database: Database
) -> None:
    own = (await as_(guarded, TENANT, "POST", "/notifications", json=NOTIFICATION)).json
    other = (await as_(guarded, SEND, "POST", "/notifications", json=NOTIFICATION)).json
    delivery = other["deliveries"][0]["id"]

    listed = (await as_(guarded, TENANT, "GET", "/notifications")).json["items"]
    assert [(item["id"], item["tenant_id"]) for item in listed] == [(own["id"], 5)]
    deliveries = (await as_(guarded, TENANT, "GET", "/deliveries")).json["items"]
    assert {d["notification_id"] for d in deliveries} == {own["id"]}
    for method, path in [
        ("GET", f"/notifications/{other['id']}"),
        ("POST", f"/notifications/{other['id']}/cancel"),
        ("GET", f"/deliveries/{delivery}"),
        ("POST", f"/deliveries/{delivery}/retry"),
        ("GET", "/notifications?tenant_id=6"),
    ]:
        assert (await as_(guarded, TENANT, method, path)).status == 404, path
    refused = await as_(
        guarded, TENANT, "POST", "/notifications", json={**NOTIFICATION, "tenant_id": 6}
    )
    assert refused.json["errors"][0]["code"] == "tenant_mismatch"


async def test_a_tenants_key_sees_nothing_of_all_tenants(guarded: Api) -> None:
    answer = await as_(guarded, TENANT, "GET", "/metrics")

    assert (answer.status, answer.json["code"]) == (403, "tenant_key")
    assert "for tenant 5 alone" in answer.json["detail"]


async def test_a_tenants_endpoints_are_its_own(guarded: Api) -> None:
    url = {"url": "https://example.com/hook"}
    other = (await as_(guarded, ADMIN, "POST", "/endpoints", json={**url, "tenant_id": 6})).json
    own = (await as_(guarded, TENANT, "POST", "/endpoints", json=url)).json

    assert own["tenant_id"] == 5
    assert [e["id"] for e in (await as_(guarded, TENANT, "GET", "/endpoints")).json["items"]] == [
        own["id"]
    ]
    for verb in ("rotate", "retire", "enable"):
        path = f"/endpoints/{other['id']}/{verb}"
        assert (await as_(guarded, TENANT, "POST", path)).status == 404
        assert (await as_(guarded, ADMIN, "POST", path)).status == 200


async def test_a_key_created_while_running_closes_the_server(
    api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allim.web.keys.CACHE_SECONDS", 0.0)
    token = await create_key(database, "new", [AccessScope.SEND])

    assert (await api.create()).status == 401
    answer = await as_(api, token, "POST", "/notifications", json=NOTIFICATION)
    assert answer.status == 202

    [key] = await list_keys(database)
    assert await revoke_key(database, key.id)
    assert not await revoke_key(database, key.id)


async def test_a_revoked_key_is_refused(
    start_api: Start, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allim.web.keys.CACHE_SECONDS", 0.0)
    guarded = await start_api(ALLIM_API_KEYS=KEYS)
    token = await create_key(database, "brief", [AccessScope.READ])
    assert (await as_(guarded, token, "GET", "/notifications")).status == 200

    await revoke_key(database, (await list_keys(database))[0].id)

    assert (await as_(guarded, token, "GET", "/notifications")).status == 401


async def test_only_the_hash_of_a_key_is_stored(database: Database) -> None:
    token = await create_key(database, "k", [AccessScope.ADMIN], tenant_id=3)

    assert token.startswith("allim_")
    assert len(token) >= len("allim_") + 43
    stored = str(await database.fetch("SELECT k::text, encode(key_hash, 'escape') FROM api_key k"))
    assert token not in stored
    assert token.removeprefix("allim_") not in stored


async def test_only_known_hosts_are_answered(api: Api, start_api: Start) -> None:
    async def status(at: Api, host: str, path: str = "/notifications") -> int:
        return (await at.get(path, headers={"Host": host})).status

    assert await status(api, "evil.example") == 400
    assert await status(api, "localhost:1234") == 200
    assert await status(api, "evil.example", "/health/live") == 200
    named = await start_api(ALLIM_ALLOWED_HOSTS="hub.example,*.corp.example")
    assert await status(named, "hub.example") == 200
    assert await status(named, "a.corp.example:80") == 200
    assert await status(named, "localhost") == 400


async def test_pages_of_other_sites_cannot_act_through_a_browser(api: Api) -> None:
    own = api.url
    for headers, status in [
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": own}, 202),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
    ]:
        answer = await api.post("/notifications", json=NOTIFICATION, headers=headers)
        assert answer.status == status


async def test_every_answer_carries_security_headers(api: Api) -> None:
    for answer in (await api.get("/docs"), await api.get("/nowhere"), await api.create()):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


async def test_many_requests_read_the_keys_once(
    start_api: Start, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await start_api()
    asked = 0
    fetch = database.fetch

    async def counting(statement: Any, parameters: Any = None) -> Any:
        nonlocal asked
        asked += "api_key" in statement
        return await fetch(statement, parameters)

    monkeypatch.setattr(database, "fetch", counting)
    await asyncio.gather(*(api.get("/nowhere") for _ in range(20)))

    assert asked == 1


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("name", "must be name:secret"),
        ("name:0123456789abcdef", "must be name:secret"),
        ("name:short:read", "16 characters"),
        (":0123456789abcdef:read", "needs a name"),
        ("name:0123456789abcdef:write", "scopes"),
        ("name:0123456789abcdef:", "scopes"),
        ("name:0123456789abcdef:read:x", "tenant"),
        ("name:0123456789abcdef:read:0", "tenant"),
        ("a:0123456789abcdef:read,b:0123456789abcdef:send", "another key's"),
    ],
)
def test_a_malformed_key_setting_is_told_without_its_secret(setting: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        read_keys(setting)
    assert "0123456789abcdef" not in str(raised.value)


def test_keys_are_read_with_scopes_and_tenant() -> None:
    keys = read_keys("a:0123456789abcdef:send+read , b:fedcba9876543210:operate:7,")

    assert sorted(keys.values(), key=lambda p: p.name) == [
        Principal("a", frozenset({AccessScope.SEND, AccessScope.READ})),
        Principal("b", frozenset({AccessScope.OPERATE, AccessScope.READ}), 7),
    ]


def test_a_server_without_keys_stays_on_loopback() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        refuse_open_bind(host, keys_exist=False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "hub.example", ""):
        with pytest.raises(ConfigurationError, match="API key"):
            refuse_open_bind(host, keys_exist=False)
        refuse_open_bind(host, keys_exist=True)


async def test_whether_keys_exist_looks_at_settings_and_table(database: Database) -> None:
    assert not await keys_exist(database, Environment({}))
    assert await keys_exist(database, Environment({"ALLIM_API_KEYS": KEYS}))
    await create_key(database, "k", [AccessScope.READ])
    assert await keys_exist(database, Environment({}))


async def test_an_unexpected_error_tells_nothing_of_the_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret inside")

    monkeypatch.setattr("allim.hub.reading.Reader.deliveries", broken)

    answer = await api.get("/deliveries")

    assert (answer.status, answer.json["code"]) == (500, "internal_error")
    assert b"secret" not in answer.body
    assert "secret inside" in caplog.text


async def test_websockets_are_not_served(api: Api) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await api.session.ws_connect(api.url + "/notifications")


async def test_revoking_the_last_key_does_not_open_a_server_that_others_can_reach(
    start_api: Start, database: Database
) -> None:
    token = await create_key(database, "only", [AccessScope.ADMIN])
    api = await start_api(ALLIM_HOST="0.0.0.0", ALLIM_ALLOWED_HOSTS="127.0.0.1")
    (key,) = await list_keys(database)
    await revoke_key(database, key.id)

    assert (await api.get("/notifications")).status == 401
    assert (await as_(api, token, "GET", "/notifications")).status == 401
    assert (await api.create()).status == 401
